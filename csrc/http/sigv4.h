// AWS Signature Version 4, as S3 wants it: the path is encoded once, and is not normalized.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace s3io {

struct Credentials {
  std::string access_key;  // empty: requests are not signed
  std::string secret_key;
  std::string session_token;  // empty: there is none

  bool operator==(const Credentials&) const = default;
};

struct HttpHeader {
  std::string name;  // in lower case
  std::string value;
};

using Sha256 = std::array<uint8_t, 32>;

Sha256 sha256(std::span<const std::byte> data);
Sha256 hmac_sha256(std::span<const uint8_t> key, std::string_view text);
std::string hex(const Sha256& digest);

// Of what S3 does not check: reads, and payloads whose checksum is sent otherwise.
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

struct RequestToSign {
  std::string_view method;
  std::string_view path;                // percent-encoded
  std::string_view query;               // percent-encoded, sorted by name; "name=" without a value
  std::span<const HttpHeader> headers;  // those to sign: host and x-amz-*; sorted by name
  std::string_view payload_hash;        // in hexadecimal digits, or kUnsignedPayload
};

// Of a time since 1970: "20150830T123600Z".
using AmzDate = std::array<char, 16>;
AmzDate amz_date(int64_t seconds);

// Writes over `out`. The text that is hashed and signed, step 1 of the description.
void write_canonical_request(const RequestToSign& request, std::string& out);

// Keeps a key that was derived, so that it is derived once a day. One thread at a time; does not
// allocate in the steady state.
class Signer {
 public:
  explicit Signer(std::string service = "s3") : service_(std::move(service)) {}

  // Writes the value of the header Authorization over `out`.
  void sign(const RequestToSign& request, const Credentials& credentials, std::string_view region,
            const AmzDate& date, std::string& out);

 private:
  void derive_key(const Credentials& credentials, std::string_view region, std::string_view day);

  const std::string service_;
  std::string secret_, region_, day_;  // of the key
  Sha256 key_{};
  std::string text_, scope_;  // memory that is used again
};

}  // namespace s3io
