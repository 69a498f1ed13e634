#include "http/sigv4.h"

#include <openssl/evp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <new>

namespace s3io {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr size_t kBlockBytes = 64;  // of SHA-256

// OpenSSL's context, one a thread: to fetch the algorithm for each digest takes longer than it.
class Hasher {
 public:
  static Hasher& mine() {
    thread_local Hasher hasher;
    return hasher;
  }

  void begin() { check(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr)); }
  void add(const void* data, size_t size) { check(EVP_DigestUpdate(context_.get(), data, size)); }
  Sha256 end() {
    Sha256 digest;
    check(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr));
    return digest;
  }

 private:
  static void check(int is_right) {
    if (is_right != 1) throw std::bad_alloc();  // nothing else can fail
  }
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  const std::unique_ptr<EVP_MD_CTX, Free> context_{EVP_MD_CTX_new()};
};

Sha256 digest_of(const void* data, size_t size) {
  Hasher& hasher = Hasher::mine();
  hasher.begin();
  hasher.add(data, size);
  return hasher.end();
}

void append_hex(std::string& out, const Sha256& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const uint8_t byte : digest) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
}

void append_signed_names(std::string& out, std::span<const HttpHeader> headers) {
  for (const HttpHeader& header : headers) {
    if (&header != &headers.front()) out += ';';
    out += header.name;
  }
}

// Without blanks at its ends, and several as one.
void append_trimmed(std::string& out, std::string_view value) {
  const size_t begin = out.size();
  for (const char one : value) {
    const bool is_blank = one == ' ' || one == '\t';
    if (is_blank && (out.size() == begin || out.back() == ' ')) continue;
    out += is_blank ? ' ' : one;
  }
  if (out.size() > begin && out.back() == ' ') out.pop_back();
}

}  // namespace

Sha256 sha256(std::span<const std::byte> data) { return digest_of(data.data(), data.size()); }

// RFC 2104.
Sha256 hmac_sha256(std::span<const uint8_t> key, std::string_view text) {
  std::array<uint8_t, kBlockBytes> inner{};
  if (key.size() > kBlockBytes) {
    std::ranges::copy(digest_of(key.data(), key.size()), inner.begin());
  } else {
    std::ranges::copy(key, inner.begin());
  }
  std::array<uint8_t, kBlockBytes> outer = inner;
  for (uint8_t& byte : inner) byte ^= 0x36;
  for (uint8_t& byte : outer) byte ^= 0x5c;
  Hasher& hasher = Hasher::mine();
  hasher.begin();
  hasher.add(inner.data(), inner.size());
  hasher.add(text.data(), text.size());
  const Sha256 digest = hasher.end();
  hasher.begin();
  hasher.add(outer.data(), outer.size());
  hasher.add(digest.data(), digest.size());
  return hasher.end();
}

std::string hex(const Sha256& digest) {
  std::string text;
  append_hex(text, digest);
  return text;
}

AmzDate amz_date(int64_t seconds) {
  // Years of four digits.
  seconds = std::clamp<int64_t>(seconds, 0, 253'402'300'799);
  const std::chrono::sys_seconds time{std::chrono::seconds(seconds)};
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%04d%02u%02uT%02d%02d%02dZ", int(date.year()),
                unsigned(date.month()), unsigned(date.day()), int(clock.hours().count()),
                int(clock.minutes().count()), int(clock.seconds().count()));
  AmzDate written;
  std::copy_n(text.begin(), written.size(), written.begin());
  return written;
}

void write_canonical_request(const RequestToSign& request, std::string& out) {
  out = request.method;
  out += '\n';
  out += request.path;
  out += '\n';
  out += request.query;
  out += '\n';
  for (const HttpHeader& header : request.headers) {
    out += header.name;
    out += ':';
    append_trimmed(out, header.value);
    out += '\n';
  }
  out += '\n';
  append_signed_names(out, request.headers);
  out += '\n';
  out += request.payload_hash;
}

void Signer::derive_key(const Credentials& credentials, std::string_view region,
                        std::string_view day) {
  if (secret_ == credentials.secret_key && region_ == region && day_ == day) return;
  secret_ = credentials.secret_key;
  region_ = region;
  day_ = day;
  const std::string start = "AWS4" + secret_;
  const std::span bytes(reinterpret_cast<const uint8_t*>(start.data()), start.size());
  key_ = hmac_sha256(hmac_sha256(hmac_sha256(hmac_sha256(bytes, day_), region_), service_),
                     "aws4_request");
}

void Signer::sign(const RequestToSign& request, const Credentials& credentials,
                  std::string_view region, const AmzDate& date, std::string& out) {
  const std::string_view time(date.data(), date.size());
  derive_key(credentials, region, time.substr(0, 8));
  scope_ = day_;
  for (const std::string_view part :
       {std::string_view(region_), std::string_view(service_), std::string_view("aws4_request")}) {
    scope_ += '/';
    scope_ += part;
  }
  write_canonical_request(request, text_);
  const Sha256 hash = digest_of(text_.data(), text_.size());
  text_ = kAlgorithm;
  text_ += '\n';
  text_ += time;
  text_ += '\n';
  text_ += scope_;
  text_ += '\n';
  append_hex(text_, hash);
  const Sha256 signature = hmac_sha256(key_, text_);
  out = kAlgorithm;
  out += " Credential=";
  out += credentials.access_key;
  out += '/';
  out += scope_;
  out += ", SignedHeaders=";
  append_signed_names(out, request.headers);
  out += ", Signature=";
  append_hex(out, signature);
}

}  // namespace s3io
