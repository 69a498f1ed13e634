// The checksum of a file as text: how the file keeps it in its attribute.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace s3io {

// The attribute in which a file keeps the checksum of its content, where its file system has such
// attributes.
inline constexpr const char* kChecksumAttribute = "user.torch_s3io.crc32c";

struct FileChecksum {
  int64_t size_bytes = 0;
  uint32_t crc32c = 0;

  bool operator==(const FileChecksum&) const = default;
};

// "<8 hex digits> <size in bytes>".
std::string checksum_text(const FileChecksum& checksum);
// The inverse; nothing for any other text, which another program or a damaged file system wrote.
std::optional<FileChecksum> parse_checksum(std::string_view text);

}  // namespace s3io
