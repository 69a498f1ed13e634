// What S3 says in XML: pages of lists, errors, replies to uploads in parts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace s3io {

struct ListedObject {
  std::string key;
  int64_t size_bytes = -1;
  std::string etag;  // without quotes; empty of a folder that has none ("name/", without a byte)
};

struct ListPage {
  std::vector<ListedObject> objects;
  std::string next_token;  // empty: it was the last page
};

// A page of ListObjectsV2, without encoding-type. (With it "+" means another thing on each server.)
// Throws Error(data) where a key does not begin with `prefix`, is empty or too long; where there is
// no IsTruncated, or no token though there is a next page, or a longer one than 4096 bytes; where a
// size or an ETag is none (unquote_etag), or something is said twice, and where there are more than
// 1000 keys. The order of keys is the server's.
ListPage parse_list_page(std::string_view xml, std::string_view prefix);

struct ListedUpload {
  std::string key;
  std::string id;
  int64_t begun_s = -1;  // since 1970
};

struct UploadPage {
  std::vector<ListedUpload> uploads;
  bool is_last = true;
  std::string next_key, next_id;  // where the next page begins
};

// A page of ListMultipartUploads. Throws Error(data) where a key does not begin with `prefix`,
// where something of an upload is missing, said twice or too long, where the page does not say
// whether and where there is a next one, and where there are more than 1000 uploads.
UploadPage parse_upload_page(std::string_view xml, std::string_view prefix);

struct S3Error {
  std::string code;     // letters, digits and dots; empty where there is none
  std::string message;  // bounded
  std::string request_id;
  std::string region;
};

// Of a body that should be an <Error>, of any kind: what is no XML has no code.
S3Error parse_s3_error(std::string_view xml);

// Of CreateMultipartUpload; throws Error(data) where there is none.
std::string parse_upload_id(std::string_view xml);
// The ETag of CompleteMultipartUpload, without quotes. A body that is an <Error>, though the status
// said 200, is in `error`.
std::string parse_completed_upload(std::string_view xml, std::optional<S3Error>& error);

}  // namespace s3io
