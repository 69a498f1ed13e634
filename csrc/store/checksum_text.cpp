#include "store/checksum_text.h"

#include <charconv>
#include <cstdio>

#include "base/error.h"

namespace s3io {

std::string checksum_text(const FileChecksum& checksum) {
  char digits[16];
  std::snprintf(digits, sizeof(digits), "%08x", checksum.crc32c);
  return message(std::string_view(digits), " ", checksum.size_bytes);
}

std::optional<FileChecksum> parse_checksum(std::string_view text) {
  constexpr size_t kDigits = 8;
  if (text.size() < kDigits + 2) return std::nullopt;
  FileChecksum checksum;
  std::from_chars(text.data(), text.data() + kDigits, checksum.crc32c, 16);
  std::from_chars(text.data() + kDigits + 1, text.data() + text.size(), checksum.size_bytes);
  // One value has one text: whatever else these numbers were found in is none.
  if (checksum.size_bytes < 0 || checksum_text(checksum) != text) return std::nullopt;
  return checksum;
}

}  // namespace s3io
