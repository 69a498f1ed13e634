#include "http/response_head.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

#include "base/error.h"
#include "base/printable.h"
#include "http/etag.h"

namespace s3io {
namespace {

constexpr std::string_view kBlanks = " \t";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  return std::ranges::equal(text, lower, [](char one, char other) {
    return (one >= 'A' && one <= 'Z' ? static_cast<char>(one + 32) : one) == other;
  });
}

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char one) { return one > 0x20 && one < 0x7f; });
}

// Digits alone; -1 for anything else.
int64_t parse_number(std::string_view text) {
  int64_t number = -1;
  if (text.empty() || text.front() == '-') return -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : -1;
}

// Keeps one value; another one for the same header is a contradiction.
bool keep(std::string& kept, std::string_view value) {
  if (!kept.empty() && kept != value) return false;
  kept = value;
  return true;
}

}  // namespace

void ResponseHead::clear() {
  bytes_ = 0;
  problem_ = {};
  status_ = 0;
  content_length_ = range_first_ = range_last_ = range_size_ = date_ = retry_after_s_ = -1;
  has_content_encoding_ = has_transfer_encoding_ = false;
  for (std::string* text :
       {&etag_, &request_id_, &bucket_region_, &checksum_crc32c_, &checksum_type_, &write_id_}) {
    text->clear();
  }
}

bool ResponseHead::fail(std::string_view problem) {
  if (problem_.empty()) problem_ = problem;
  return false;
}

bool ResponseHead::add_line(std::string_view line) {
  if (!problem_.empty()) return false;
  const size_t bytes = bytes_ + line.size();
  if (bytes > kMostBytes) return fail("its headers are longer than 64 KiB");
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) {
    if (status_ >= 200) return fail("it has two status lines");
    clear();
    bytes_ = bytes;
    return add_status(line);
  }
  bytes_ = bytes;
  if (line.empty()) return true;
  if (status_ == 0) return fail("it does not begin with a status line");
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, std::min(colon, line.size()));
  // One with a blank is another header for some (RFC 9112, 5.1).
  if (name.empty() || colon == std::string_view::npos || !is_printable(name)) {
    return fail("a header has no name, or a blank in it");
  }
  if (line.find('\0') != std::string_view::npos || line.find('\r') != std::string_view::npos) {
    return fail("a header has a character that none may have");
  }
  return add_header(name, trimmed(line.substr(colon + 1)));
}

bool ResponseHead::add_status(std::string_view line) {
  const size_t space = line.find(' ');
  const std::string_view code = space == std::string_view::npos ? "" : line.substr(space + 1, 3);
  const int64_t status = code.size() == 3 ? parse_number(code) : -1;
  if (!line.starts_with("HTTP/1.") || status < 100 || status > 599 ||
      (line.size() > space + 4 && line[space + 4] != ' ')) {
    return fail("its status line is no such");
  }
  status_ = static_cast<int>(status);
  return true;
}

bool ResponseHead::add_header(std::string_view name, std::string_view value) {
  const auto is = [&](std::string_view lower) { return equals_ignoring_case(name, lower); };
  if (is("content-length")) return add_length(value);
  if (is("content-range")) return add_range(value);
  if (is("etag")) return add_etag(value);
  if (is("content-encoding")) {
    has_content_encoding_ = has_content_encoding_ || !equals_ignoring_case(value, "identity");
  } else if (is("transfer-encoding")) {
    has_transfer_encoding_ = true;
  } else if (is("date")) {
    date_ = parse_http_date(value);
  } else if (is("retry-after")) {
    retry_after_s_ = parse_number(value);
  } else if (is("x-amz-request-id")) {
    if (value.size() <= kMostValueBytes && is_printable(value)) request_id_ = value;
  } else if (is("x-amz-bucket-region")) {
    if (value.size() <= kMostValueBytes && is_printable(value)) bucket_region_ = value;
  } else if (is("x-amz-meta-s3io-write-id")) {
    if (value.size() <= kMostValueBytes && is_printable(value)) write_id_ = value;
  } else if (is("x-amz-checksum-type")) {
    if (value.size() <= kMostValueBytes) checksum_type_ = value;
  } else if (is("x-amz-checksum-crc32c")) {
    if (value.size() > kMostValueBytes || !keep(checksum_crc32c_, value)) {
      return fail("it has two checksums");
    }
  }
  return true;
}

bool ResponseHead::add_length(std::string_view value) {
  const int64_t length = parse_number(value);
  if (length < 0) return fail("its Content-Length is no number");
  if (content_length_ >= 0 && content_length_ != length) {
    return fail("it has two Content-Lengths that differ");
  }
  content_length_ = length;
  return true;
}

// "bytes 0-99/1000", "bytes */1000".
bool ResponseHead::add_range(std::string_view value) {
  const size_t slash = value.find('/');
  if (range_size_ >= 0) return fail("it has two Content-Ranges");
  if (!equals_ignoring_case(value.substr(0, 6), "bytes ") || slash == std::string_view::npos) {
    return fail("its Content-Range is none of bytes");
  }
  const std::string_view bounds = trimmed(value.substr(6, slash - 6));
  range_size_ = parse_number(value.substr(slash + 1));
  if (range_size_ < 0) return fail("its Content-Range does not say how long the object is");
  if (bounds == "*") return true;
  const size_t hyphen = std::min(bounds.find('-'), bounds.size());
  range_first_ = parse_number(bounds.substr(0, hyphen));
  range_last_ = parse_number(bounds.substr(std::min(hyphen + 1, bounds.size())));
  const bool is_range =
      range_first_ >= 0 && range_last_ >= range_first_ && range_last_ < range_size_;
  return is_range || fail("its Content-Range is no range");
}

bool ResponseHead::add_etag(std::string_view value) {
  if (value.starts_with("W/")) return fail("its ETag is a weak one, which is no identity");
  if (!unquote_etag(value)) return fail("its ETag is empty, too long or not printable");
  return keep(etag_, value) || fail("it has two ETags");
}

bool unquote_etag(std::string_view& value) {
  if (value.size() >= 2 && value.starts_with('"') && value.ends_with('"')) {
    value = value.substr(1, value.size() - 2);
  }
  return !value.empty() && value.size() <= ResponseHead::kMostValueBytes && is_printable(value) &&
         value.find('"') == std::string_view::npos;  // one that is weak has it
}

int64_t parse_http_date(std::string_view text) {
  constexpr std::array<std::string_view, 12> kMonths{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  // "Sun, 06 Nov 1994 08:49:37 GMT"
  const bool has_form = text.size() == 29 && text.substr(3, 2) == ", " && text[7] == ' ' &&
                        text[11] == ' ' && text[16] == ' ' && text[19] == ':' && text[22] == ':' &&
                        text.ends_with(" GMT");
  if (!has_form) return -1;
  const auto number = [&](size_t at, size_t count) { return parse_number(text.substr(at, count)); };
  const auto month = std::ranges::find(kMonths, text.substr(8, 3));
  const int64_t day = number(5, 2), year = number(12, 4);
  const int64_t hour = number(17, 2), minute = number(20, 2), second = number(23, 2);
  if (month == kMonths.end() || day < 0 || year < 1970 || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 60) {
    return -1;
  }
  const std::chrono::year_month_day date{
      std::chrono::year(static_cast<int>(year)),
      std::chrono::month(static_cast<unsigned>(month - kMonths.begin() + 1)),
      std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return -1;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return days * 86400 + hour * 3600 + minute * 60 + second;
}

RangeVerdict judge_range(const ResponseHead& head, const ExpectedRange& expected,
                         std::string& why) {
  const auto say = [&](RangeVerdict verdict, const auto&... parts) {
    why = message(parts...);
    return verdict;
  };
  using enum RangeVerdict;
  if (!head.problem().empty()) return say(malformed, head.problem());
  const int status = head.status();
  if (status == 412) return say(changed, "it has another ETag now (412)");
  if (status == 416) return say(changed, "it is shorter now (416)");
  if (status < 200 || status > 299) return other;
  if (status != 206 && !expected.is_look()) {
    return say(malformed, "the status is ", status,
               ", not 206: the server does not serve ranges of objects");
  }
  if (head.has_content_encoding()) return say(malformed, "its bytes are encoded");
  if (head.has_transfer_encoding()) return say(malformed, "it says not how long it is, but chunks");
  if (head.etag().empty()) return say(malformed, "it has no ETag");
  const bool is_version = expected.etag.empty() ? etag_number(head.etag()) == expected.etag_number
                                                : head.etag() == expected.etag;
  if (!is_version) return say(changed, "it has another ETag now, ", quoted(head.etag()));
  if (expected.is_look()) {
    if (status != 200) return say(malformed, "the status is ", status, ", not 200");
    if (head.content_length() < 0) return say(malformed, "it has no Content-Length");
    if (head.content_length() == expected.object_bytes) return right;
    return say(changed, "it has ", head.content_length(), " bytes now, not ",
               expected.object_bytes);
  }
  if (head.range_first() < 0) return say(malformed, "it has no Content-Range");
  if (head.range_size() != expected.object_bytes) {
    return say(changed, "it has ", head.range_size(), " bytes now, not ", expected.object_bytes);
  }
  if (head.range_first() != expected.offset ||
      head.range_last() != expected.offset + expected.length - 1) {
    return say(malformed, "its bytes are ", head.range_first(), "-", head.range_last());
  }
  if (head.content_length() != expected.length) {
    return say(malformed, "its Content-Length is ", head.content_length());
  }
  return right;
}

}  // namespace s3io
