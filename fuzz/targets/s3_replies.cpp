// What a server sends: heads of replies, and bodies in XML. A range is accepted only where every
// header says so; whatever else comes is refused, and takes no more memory than it has bytes.
#include <cinttypes>
#include <optional>
#include <vector>

#include "base/error.h"
#include "engine/input.h"
#include "http/etag.h"
#include "http/response_head.h"
#include "http/s3_xml.h"
#include "http/xml.h"

namespace s3io::fuzz {
namespace {

constexpr ExpectedRange kExpected{100, 50, 1000, "etag", 0};

ResponseHead head_of(const std::string& text) {
  ResponseHead head;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    const bool is_well = head.add_line(std::string_view(text).substr(at, end - at));
    require(is_well == head.problem().empty());
    at = end;
  }
  return head;
}

void check_head(const ResponseHead& head) {
  require(head.status() == 0 || (head.status() >= 100 && head.status() <= 599));
  require(head.content_length() >= -1 && head.etag().size() <= ResponseHead::kMostValueBytes);
  std::string why;
  const RangeVerdict verdict = judge_range(head, kExpected, why);
  require((verdict == RangeVerdict::changed || verdict == RangeVerdict::malformed) != why.empty());
  require(why.size() < 1000);
  if (verdict != RangeVerdict::right) return;
  require(head.status() == 206 && head.etag() == kExpected.etag && head.content_length() == 50);
  require(head.range_first() == 100 && head.range_last() == 149 && head.range_size() == 1000);
  require(!head.has_content_encoding() && !head.has_transfer_encoding());
}

// None where it is refused.
template <typename Parse>
auto parsed(Parse parse) -> std::optional<decltype(parse())> {
  try {
    return parse();
  } catch (const Error& error) {
    const std::string shown = error.what();
    require(error.kind() == ErrorKind::data && shown.size() < 1000);
    require(shown.find('\n') == std::string::npos);
    return std::nullopt;
  }
}

void check_page(const ListPage& page, const std::string& prefix) {
  require(page.objects.size() <= 1000);
  for (const ListedObject& object : page.objects) {
    require(!object.key.empty() && object.key.starts_with(prefix) && object.size_bytes >= 0);
  }
}

void check_xml(const std::string& xml, const std::string& prefix) {
  size_t elements = 0, bytes = 0;
  const auto walk = [&] {
    walk_xml(xml, [&](std::string_view path, std::string_view text) {
      ++elements;
      bytes += text.size();
      require(!path.empty() && path.size() < 300);
    });
    return true;
  };
  const bool is_whole = parsed(walk).has_value();
  require(elements <= xml.size() && bytes <= xml.size());
  const auto page = parsed([&] { return parse_list_page(xml, prefix); });
  require(!page || is_whole);
  if (page) check_page(*page, prefix);
  const auto uploads = parsed([&] { return parse_upload_page(xml, prefix); });
  for (const ListedUpload& upload : uploads ? uploads->uploads : std::vector<ListedUpload>()) {
    require(upload.key.starts_with(prefix) && !upload.id.empty() && upload.begun_s >= 0);
  }
  const S3Error error = parse_s3_error(xml);
  require(error.code.find('\n') == std::string::npos && error.message.size() <= 300);
  std::optional<S3Error> failed;
  static_cast<void>(parsed([&] { return parse_completed_upload(xml, failed); }));
  static_cast<void>(parsed([&] { return parse_upload_id(xml); }));
}

void read(Input& input) {
  const std::string prefix = input.flag() ? "" : "a";
  if (input.flag()) {
    check_xml(input.rest(), prefix);
  } else {
    const std::string text = input.rest();
    check_head(head_of(text));
    require(parse_http_date(text.substr(0, 29)) >= -1 && etag_number(text) >= 0);
    const std::string etag = etag_of(version_of(1, text));
    require(etag.empty() || etag == text);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
