#include "http/s3_xml.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "http/response_head.h"
#include "http/url.h"
#include "http/xml.h"

namespace s3io {
namespace {

constexpr size_t kMostKeys = 1000;  // of a page, as S3 promises
constexpr size_t kMostTokenBytes = 4096;

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
