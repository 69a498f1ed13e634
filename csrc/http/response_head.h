// The status line and the headers of a reply, and whether its body may be stored as a range of an
// object. They are judged before a byte of the body is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace s3io {

// Of one reply; used again for the next one, without allocating. One thread.
//
// Lines come one by one, as they arrive. What contradicts itself or is too long is malformed from
// then on: `problem` says why.
class ResponseHead {
 public:
  static constexpr size_t kMostBytes = size_t{64} << 10;  // of all lines
  static constexpr size_t kMostValueBytes = 1024;         // of a value that is kept

  void clear();
  // One line, with or without its end. A status line begins anew, as after "100 Continue". False
  // where the reply is malformed.
  bool add_line(std::string_view line);

  std::string_view problem() const { return problem_; }       // a sentence's part; empty: none
  int status() const { return status_; }                      // 0: there was no status line yet
  int64_t content_length() const { return content_length_; }  // -1: not said
  // Content-Range: bytes first-last/size. All -1 where there is none; of "bytes */size" the size.
  int64_t range_first() const { return range_first_; }
  int64_t range_last() const { return range_last_; }
  int64_t range_size() const { return range_size_; }
  // Without quotes. Weak ones, and those with a byte that is not printable, are malformed.
  const std::string& etag() const { return etag_; }
  bool has_content_encoding() const { return has_content_encoding_; }  // other than "identity"
  bool has_transfer_encoding() const { return has_transfer_encoding_; }
  int64_t date() const { return date_; }                         // seconds since 1970; -1: not said
  int64_t retry_after_s() const { return retry_after_s_; }       // -1: not said, or as a date
  const std::string& request_id() const { return request_id_; }  // printable, or empty
  const std::string& bucket_region() const { return bucket_region_; }
  // x-amz-checksum-crc32c, in base64 as it came; of the whole object or the part, never of a range.
  const std::string& checksum_crc32c() const { return checksum_crc32c_; }
  // x-amz-checksum-type: FULL_OBJECT, or COMPOSITE, which is of the checksums of parts.
  const std::string& checksum_type() const { return checksum_type_; }
  // x-amz-meta-s3io-write-id: which of our writes the object is of (S3NewObject).
  const std::string& write_id() const { return write_id_; }

 private:
  bool fail(std::string_view problem);
  bool add_status(std::string_view line);
  bool add_header(std::string_view name, std::string_view value);
  bool add_length(std::string_view value);
  bool add_range(std::string_view value);
  bool add_etag(std::string_view value);

  size_t bytes_ = 0;
  std::string_view problem_;
  int status_ = 0;
  int64_t content_length_ = -1;
  int64_t range_first_ = -1, range_last_ = -1, range_size_ = -1;
  bool has_content_encoding_ = false;
  bool has_transfer_encoding_ = false;
  int64_t date_ = -1;
  std::string etag_, request_id_, bucket_region_, checksum_crc32c_, checksum_type_, write_id_;
  int64_t retry_after_s_ = -1;
};

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, IMF-fixdate) in seconds since 1970; -1: it is none.
int64_t parse_http_date(std::string_view text);

// Takes the quotes off. False where it is no identity: a weak one, or one that is empty, has more
// than 1024 bytes, or a byte that is not printable.
bool unquote_etag(std::string_view& value);

// What a reply must be for its body to be these bytes of that version of an object. Of no bytes it
// is a look: the reply to a HEAD, which says that this version is there.
struct ExpectedRange {
  int64_t offset = 0;
  int64_t length = 0;
  int64_t object_bytes = 0;
  std::string_view etag;  // without quotes; empty: only its number is known
  int64_t etag_number = 0;

  bool is_look() const { return length == 0; }
};

enum class RangeVerdict : uint8_t {
  right,      // 206, of a look 200, and exactly what was asked for
  changed,    // of another version of the object
  malformed,  // a success that is not what was asked for: no byte of it may be used
  other,      // another status: an error with a text
};

// `why` of changed and malformed: a part of a sentence that says what is wrong.
RangeVerdict judge_range(const ResponseHead& head, const ExpectedRange& expected, std::string& why);

}  // namespace s3io
