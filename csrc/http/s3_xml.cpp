#include "http/s3_xml.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "http/response_head.h"
#include "http/url.h"

namespace s3io {
namespace {

constexpr size_t kMostDepth = 8;
constexpr size_t kMostPathBytes = 256;
constexpr size_t kMostTextBytes = 8192;  // of one element
constexpr size_t kMostKeys = 1000;       // of a page, as S3 promises
constexpr size_t kMostTokenBytes = 4096;
constexpr std::string_view kXmlBlanks = " \t\r\n";

bool is_name_character(char one) {
  return (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || (one >= '0' && one <= '9') ||
         one == '-' || one == '_' || one == '.' || one == ':';
}

class Walk {
 public:
  Walk(std::string_view xml, const XmlVisitor& visit) : xml_(xml), visit_(visit) {}

  void run() {
    skip_blanks();
    if (rest().starts_with("<?xml")) skip_behind("?>");
    skip_blanks();
    if (!rest().starts_with('<') || rest().starts_with("</"))
      fail("it does not begin with an element");
    do {
      if (rest().starts_with("</")) {
        close();
      } else if (rest().starts_with('<')) {
        open();
      } else {
        add_text();
      }
    } while (!begins_.empty());
    skip_blanks();
    if (at_ < xml_.size()) fail("something follows its end");
  }

 private:
  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(ErrorKind::data, message("the XML is malformed at byte ", at_, ": ", problem));
  }
  std::string_view rest() const { return xml_.substr(at_); }
  void skip_blanks() { at_ = std::min(xml_.find_first_not_of(kXmlBlanks, at_), xml_.size()); }
  void skip_behind(std::string_view end) {
    const size_t found = xml_.find(end, at_);
    if (found == std::string_view::npos) fail("it is cut off");
    at_ = found + end.size();
  }

  std::string_view name() {
    const size_t begin = at_;
    while (at_ < xml_.size() && is_name_character(xml_[at_])) ++at_;
    if (at_ == begin) fail("a name was expected");
    return xml_.substr(begin, at_ - begin);
  }

  void open() {
    at_ += 1;
    const std::string_view element = name();
    if (begins_.size() >= kMostDepth || path_.size() + element.size() >= kMostPathBytes) {
      fail("its elements lie too deep in each other");
    }
    begins_.push_back(path_.size());
    if (!path_.empty()) path_ += '/';
    path_ += element;
    text_.clear();
    is_leaf_ = true;
    skip_attributes();
    if (rest().starts_with("/>")) {
      at_ += 2;
      end_element();
    } else if (rest().starts_with('>')) {
      at_ += 1;
    } else {
      fail("a tag has no end");
    }
  }

  void skip_attributes() {
    for (skip_blanks(); at_ < xml_.size() && is_name_character(xml_[at_]); skip_blanks()) {
      name();
      const char quote = rest().size() >= 2 && xml_[at_] == '=' ? xml_[at_ + 1] : '\0';
      if (quote != '"' && quote != '\'') fail("an attribute has no value");
      at_ += 2;
      skip_behind(std::string_view(&quote, 1));
    }
  }

  void close() {
    at_ += 2;
    const std::string_view element = name();
    const size_t begin = begins_.back() + (begins_.back() == 0 ? 0 : 1);
    if (element != std::string_view(path_).substr(begin)) fail("an element ends as another one");
    skip_blanks();
    if (!rest().starts_with('>')) fail("a tag has no end");
    at_ += 1;
    end_element();
  }

  void end_element() {
    visit_(path_, is_leaf_ ? text_ : std::string_view());
    path_.resize(begins_.back());
    begins_.pop_back();
    is_leaf_ = false;
  }

  void add_text() {
    const size_t end = xml_.find('<', at_);
    if (end == std::string_view::npos) fail("it is cut off");
    while (at_ < end) {
      if (text_.size() >= kMostTextBytes) fail("a text is too long");
      if (xml_[at_] == '&') {
        add_reference(end);
      } else {
        text_ += xml_[at_++];
      }
    }
  }

  void add_reference(size_t end) {
    constexpr std::pair<std::string_view, char> kEntities[] = {
        {"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (const auto& [entity, character] : kEntities) {
      if (!rest().starts_with(entity)) continue;
      text_ += character;
      at_ += entity.size();
      return;
    }
    const bool is_hex = rest().starts_with("&#x");
    const size_t semicolon = xml_.find(';', at_);
    if (!rest().starts_with("&#") || semicolon >= end) fail("an entity is unknown");
    const std::string_view digits = xml_.substr(at_, semicolon - at_).substr(is_hex ? 3 : 2);
    uint32_t code = 0;
    const auto [last, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), code, is_hex ? 16 : 10);
    const bool is_character = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    if (error != std::errc() || last != digits.data() + digits.size() || !is_character) {
      fail("a number is none of a character");
    }
    add_character(code);
    at_ = semicolon + 1;
  }

  void add_character(uint32_t code) {  // UTF-8
    const auto add = [&](uint32_t byte) { text_ += static_cast<char>(byte); };
    if (code < 0x80) return add(code);
    if (code < 0x800) {
      add(0xc0 | code >> 6);
    } else {
      if (code < 0x10000) {
        add(0xe0 | code >> 12);
      } else {
        add(0xf0 | code >> 18);
        add(0x80 | (code >> 12 & 0x3f));
      }
      add(0x80 | (code >> 6 & 0x3f));
    }
    add(0x80 | (code & 0x3f));
  }

  const std::string_view xml_;
  const XmlVisitor& visit_;
  size_t at_ = 0;
  std::string path_;
  std::vector<size_t> begins_;  // of each open element, in path_
  std::string text_;            // of the innermost one
  bool is_leaf_ = false;
};

[[noreturn]] void refuse(std::string_view problem) {
  throw Error(ErrorKind::data, std::string(problem));
}

void check_key(const std::string& key, std::string_view prefix) {
  if (key.empty() || key.size() > kMostS3KeyBytes) {
    refuse("the list has a key without a byte, or of more than 1024");
  }
  if (!key.starts_with(prefix)) {
    refuse(message("the list has the key ", quoted(key), ", which nobody asked for"));
  }
}

void check_upload(const ListedUpload& upload, std::string_view prefix) {
  check_key(upload.key, prefix);
  if (upload.id.empty() || upload.id.size() > kMostS3KeyBytes) {
    refuse(
        message("the list has an upload of ", quoted(upload.key), " without a number of its own"));
  }
  if (upload.begun_s < 0) {
    refuse(message("the list does not say when the upload of ", quoted(upload.key), " was begun"));
  }
}

void check_object(const ListedObject& object, std::string_view prefix) {
  check_key(object.key, prefix);
  if (object.size_bytes < 0) {
    refuse(message("the list does not say how long the object ", quoted(object.key), " is"));
  }
  const bool is_folder = object.key.ends_with('/') && object.size_bytes == 0;
  if (object.etag.empty() && !is_folder) {
    refuse(message("the list does not say which version (ETag) of the object ", quoted(object.key),
                   " there is"));
  }
}

int64_t parse_size(std::string_view text) {
  int64_t size = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  return error == std::errc() && end == text.data() + text.size() ? size : -1;
}

// "2010-11-10T20:48:33.000Z" in seconds since 1970; -1: it is none.
int64_t parse_xml_time(std::string_view text) {
  using namespace std::chrono;
  constexpr std::string_view kForm = "dddd-dd-ddTdd:dd:dd";
  if (text.size() <= kForm.size() || text.size() > kForm.size() + 12) return -1;
  const auto is_digit = [](char one) { return one >= '0' && one <= '9'; };
  for (size_t at = 0; at < kForm.size(); ++at) {
    if (kForm[at] == 'd' ? !is_digit(text[at]) : text[at] != kForm[at]) return -1;
  }
  std::string_view end = text.substr(kForm.size());
  if (end.starts_with('.')) {
    end.remove_prefix(1);
    if (end.empty() || !is_digit(end[0])) return -1;
    while (!end.empty() && is_digit(end[0])) end.remove_prefix(1);
  }
  if (end != "Z") return -1;
  const auto number = [&](size_t begin, size_t count) {
    return static_cast<int>(parse_size(text.substr(begin, count)));
  };
  const year_month_day date{year(number(0, 4)), month(static_cast<unsigned>(number(5, 2))),
                            day(static_cast<unsigned>(number(8, 2)))};
  const int64_t hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) return -1;
  const int64_t since = sys_days(date).time_since_epoch().count() * int64_t{86'400};
  return std::max<int64_t>(-1, since + hour * 3600 + minute * 60 + second);
}

// What stands there once; empty: it was not said.
void set_once(std::string& value, std::string_view text) {
  if (!value.empty()) refuse("the list says a thing of an object, or of itself, twice");
  value = text;
}

void set_etag(std::string& etag, std::string_view text) {
  if (text.empty() || text == "\"\"") return;
  if (!unquote_etag(text)) refuse("the list has an ETag that is weak, too long or not printable");
  set_once(etag, text);
}

// Words that may stand in an error as they are.
std::string plain(std::string_view text) {
  const bool is_plain = text.size() <= 128 && std::ranges::all_of(text, is_name_character);
  return is_plain ? std::string(text) : std::string();
}

}  // namespace

void walk_xml(std::string_view xml, const XmlVisitor& visit) { Walk(xml, visit).run(); }

ListPage parse_list_page(std::string_view xml, std::string_view prefix) {
  ListPage page;
  ListedObject object;
  std::string is_truncated;
  walk_xml(xml, [&](std::string_view path, std::string_view text) {
    constexpr std::string_view kRoot = "ListBucketResult/";
    if (!path.starts_with(kRoot)) {
      if (path != "ListBucketResult") refuse("the reply is no list of objects");
      return;
    }
    path.remove_prefix(kRoot.size());
    if (path == "Contents/Key") {
      set_once(object.key, text);
    } else if (path == "Contents/Size") {
      if (object.size_bytes >= 0) refuse("the list has an object of two sizes");
      object.size_bytes = parse_size(text);
    } else if (path == "Contents/ETag") {
      set_etag(object.etag, text);
    } else if (path == "Contents") {
      check_object(object, prefix);
      if (page.objects.size() >= kMostKeys) refuse("a page of the list has more than 1000 keys");
      page.objects.push_back(std::exchange(object, {}));
    } else if (path == "IsTruncated") {
      set_once(is_truncated, text);
    } else if (path == "NextContinuationToken") {
      if (text.size() > kMostTokenBytes) refuse("the list's NextContinuationToken is too long");
      set_once(page.next_token, text);
    } else if (path == "EncodingType") {
      refuse("the list has encoded keys, which nobody asked for");
    }
  });
  if (is_truncated != "true" && is_truncated != "false") {
    refuse("the list does not say whether it is whole (IsTruncated)");
  }
  if (is_truncated == "false") page.next_token.clear();
  if (is_truncated == "true" && page.next_token.empty()) {
    refuse("the list goes on, and does not say where (NextContinuationToken)");
  }
  return page;
}

UploadPage parse_upload_page(std::string_view xml, std::string_view prefix) {
  UploadPage page;
  ListedUpload upload;
  std::string is_truncated;
  walk_xml(xml, [&](std::string_view path, std::string_view text) {
    constexpr std::string_view kRoot = "ListMultipartUploadsResult/";
    if (!path.starts_with(kRoot)) {
      if (path != "ListMultipartUploadsResult") refuse("the reply is no list of uploads");
      return;
    }
    path.remove_prefix(kRoot.size());
    if (path == "Upload/Key") {
      set_once(upload.key, text);
    } else if (path == "Upload/UploadId") {
      set_once(upload.id, text);
    } else if (path == "Upload/Initiated") {
      if (upload.begun_s >= 0) refuse("the list has an upload that was begun twice");
      upload.begun_s = parse_xml_time(text);
    } else if (path == "Upload") {
      check_upload(upload, prefix);
      if (page.uploads.size() >= kMostKeys) refuse("a page of the list has more than 1000 uploads");
      page.uploads.push_back(std::exchange(upload, {}));
    } else if (path == "IsTruncated") {
      set_once(is_truncated, text);
    } else if (path == "NextKeyMarker") {
      if (text.size() > kMostTokenBytes) refuse("the list's NextKeyMarker is too long");
      set_once(page.next_key, text);
    } else if (path == "NextUploadIdMarker") {
      if (text.size() > kMostTokenBytes) refuse("the list's NextUploadIdMarker is too long");
      set_once(page.next_id, text);
    } else if (path == "EncodingType" && !text.empty()) {
      refuse("the list has encoded keys, which nobody asked for");
    }
  });
  if (is_truncated != "true" && is_truncated != "false") {
    refuse("the list does not say whether it is whole (IsTruncated)");
  }
  page.is_last = is_truncated == "false";
  if (!page.is_last && page.next_key.empty()) {
    refuse("the list goes on, and does not say where (NextKeyMarker)");
  }
  return page;
}

S3Error parse_s3_error(std::string_view xml) {
  S3Error error;
  try {
    walk_xml(xml, [&](std::string_view path, std::string_view text) {
      if (path == "Error/Code") error.code = plain(text);
      if (path == "Error/Message") error.message = text.substr(0, 300);
      if (path == "Error/RequestId") error.request_id = plain(text);
      if (path == "Error/Region") error.region = plain(text);
    });
  } catch (const Error&) {  // what was said before is of use, whatever follows
  }
  return error;
}

std::string parse_upload_id(std::string_view xml) {
  std::string id;
  walk_xml(xml, [&](std::string_view path, std::string_view text) {
    if (path == "InitiateMultipartUploadResult/UploadId") id = text;
  });
  if (id.empty() || id.size() > kMostS3KeyBytes) refuse("the reply has no number of the upload");
  return id;
}

std::string parse_completed_upload(std::string_view xml, std::optional<S3Error>& error) {
  std::string etag;
  bool is_error = false;
  walk_xml(xml, [&](std::string_view path, std::string_view text) {
    if (path == "CompleteMultipartUploadResult/ETag" && unquote_etag(text)) etag = text;
    is_error = is_error || path == "Error";
  });
  if (is_error) {
    error = parse_s3_error(xml);
  } else if (etag.empty()) {
    refuse("the reply has no ETag of the upload");
  }
  return etag;
}

}  // namespace s3io
