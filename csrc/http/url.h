// Names of objects and where they are asked for: s3://bucket/key, endpoints, percent-encoding.
// Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>

namespace s3io {

inline constexpr size_t kMostS3KeyBytes = 1024;

// What s3://bucket/key names. Where a prefix or a bucket is meant, the key may be empty.
struct S3Path {
  std::string bucket;
  std::string key;

  bool operator==(const S3Path&) const = default;
};

// Throws Error(config) where it is none: another scheme, a bucket of characters that no bucket has,
// or a key of more than 1024 bytes or with a NUL. Everything else is part of the key as it stands:
// "%", "?", "#", "//" and ".." too.
S3Path parse_s3_path(std::string_view path);

// Where a server listens.
struct Endpoint {
  bool is_tls = true;
  std::string host;  // a name, or an address; IPv6 in brackets
  int port = 0;      // 0: the scheme's

  bool operator==(const Endpoint&) const = default;
  // As in a URL and in the header Host, which leave the scheme's own port out.
  std::string authority() const;
};

// "https://host", "http://host:9000", "host:9000" (https). Throws Error(config) for others, for a
// path or a query behind it, and for user:password before it, which the text does not repeat.
Endpoint parse_endpoint(std::string_view text);
// AWS's own of a region, as "s3.eu-central-1.amazonaws.com". Throws Error(config) for a text that
// cannot be a region.
Endpoint aws_endpoint(std::string_view region);
// Letters, digits and hyphens, at most 32.
bool may_be_region(std::string_view text);

enum class Addressing : uint8_t {
  automatic,  // virtual on AWS itself where the bucket has no dots, else path
  path,       // https://host/bucket/key
  virtual_host,
};

// What a request for an object, or for a bucket (an empty key), is addressed to.
struct S3Target {
  std::string host;  // the header Host
  std::string path;  // percent-encoded, as it is signed and sent
  std::string url;   // scheme, host and path
};

// Writes over `out`, whose memory is used again. Throws Error(config) where the bucket cannot be
// part of a host name, and `virtual_host` asks for that.
void address(const Endpoint& endpoint, bool is_aws, Addressing addressing, const S3Path& object,
             S3Target& out);

// Appends the text as S3 signs it (RFC 3986): all but letters, digits and "-_.~" as %XX, in upper
// case; "/" only where it is not kept.
void append_percent_encoded(std::string& out, std::string_view text, bool keeps_slashes);

}  // namespace s3io
