#include "http/etag.h"

#include <charconv>
#include <optional>

namespace s3io {
namespace {

constexpr size_t kHalf = 16;  // digits of one of two numbers
constexpr int kPartBits = 14;
constexpr uint64_t kMostParts = 10'000;

struct Md5AndParts {
  uint64_t high, low;
  uint64_t parts;  // 0: the object was written at once
};

std::optional<uint64_t> parsed(std::string_view text, int base) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

void append_digits(std::string& text, uint64_t number) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(number >> shift) & 15];
}

std::string text_of_etag(const Md5AndParts& etag) {
  std::string text;
  append_digits(text, etag.high);
  append_digits(text, etag.low);
  if (etag.parts > 0) text += "-" + std::to_string(etag.parts);
  return text;
}

std::optional<Md5AndParts> parsed_etag(std::string_view etag) {
  if (etag.size() < 2 * kHalf) return std::nullopt;
  const auto high = parsed(etag.substr(0, kHalf), 16);
  const auto low = parsed(etag.substr(kHalf, kHalf), 16);
  std::optional<uint64_t> parts = 0;
  if (etag.size() > 2 * kHalf) parts = parsed(etag.substr(2 * kHalf + 1), 10);
  if (!high || !low || !parts || *parts > kMostParts) return std::nullopt;
  const Md5AndParts found{*high, *low, *parts};
  if (text_of_etag(found) != etag) return std::nullopt;  // it is written in another way
  return found;
}

// FNV-1a (Fowler, Noll, Vo), and splitmix64's last steps, so that all bits depend on all bytes.
uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char one : text) hash = (hash ^ static_cast<unsigned char>(one)) * 0x100000001b3;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111eb;
  return hash ^ (hash >> 31);
}

int64_t number_of(std::string_view etag, uint64_t parts) {
  return static_cast<int64_t>((hash_of(etag) >> 1) >> kPartBits << kPartBits | parts);
}

}  // namespace

int64_t etag_number(std::string_view etag) {
  const std::optional<Md5AndParts> found = parsed_etag(etag);
  return number_of(etag, found ? found->parts : 0);
}

ObjectVersion version_of(int64_t size_bytes, std::string_view etag) {
  const std::optional<Md5AndParts> found = parsed_etag(etag);
  if (!found) return {.size_bytes = size_bytes, .modified_ns = number_of(etag, 0)};
  return {.device = found->high,
          .inode = found->low,
          .size_bytes = size_bytes,
          .modified_ns = number_of(etag, found->parts)};
}

std::string etag_of(const ObjectVersion& version) {
  const uint64_t parts = static_cast<uint64_t>(version.modified_ns) & ((1 << kPartBits) - 1);
  std::string etag = text_of_etag({version.device, version.inode, parts});
  return etag_number(etag) == version.modified_ns ? etag : std::string();
}

}  // namespace s3io
