// Writers with a choice of engine, mode and pool, and what tests ask of the files that they leave.
#pragma once

#include <sys/xattr.h>

#include <memory>
#include <optional>
#include <string>

#include "base/crc32c.h"
#include "leak_check.h"
#include "store/checksum_text.h"
#include "store/object_writer.h"
#include "testing.h"

namespace s3io::testing {

inline const WaitCallback kNoCallback = {};

inline std::shared_ptr<WriteEngine> write_engine(WriteEngine::Options options,
                                                 std::shared_ptr<BufferPool> pool = nullptr) {
  options.sync = false;
  return std::make_shared<WriteEngine>(std::move(options), std::move(pool));
}

// The bytes of the file now; nothing if there is none.
inline std::optional<Bytes> content_of(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_plain(path, 0, static_cast<int64_t>(std::filesystem::file_size(path)));
}

// Quicker than to compare two `Bytes`, which under a sanitizer is done byte by byte.
inline bool holds(const std::string& path, const Bytes& expected) {
  const std::optional<Bytes> content = content_of(path);
  return content && content->size() == expected.size() && equals(content->data(), expected);
}

inline std::string checksum_attribute(const std::string& path) {
  std::array<char, 64> value{};
  const ssize_t size = ::getxattr(path.c_str(), kChecksumAttribute, value.data(), value.size());
  return size < 0 ? "" : std::string(value.data(), static_cast<size_t>(size));
}

// Writes `contents` in chunks of random sizes, some of them at odd addresses.
inline WrittenObject write_in_chunks(ObjectWriter& writer, const Bytes& contents,
                                     std::mt19937_64& random, uint64_t max_chunk) {
  std::span<const std::byte> rest = contents;
  while (!rest.empty()) {
    const auto count = std::min<size_t>(rest.size(), 1 + random() % max_chunk);
    writer.write(rest.first(count), kNoCallback);
    rest = rest.subspan(count);
  }
  return writer.finish(kNoCallback);
}

}  // namespace s3io::testing
