// Objects by name, read whole or in ranges. FileStore reads a file system; other stores follow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "memory/aligned_buf.h"

namespace s3io {

struct ObjectInfo {
  int64_t size_bytes = 0;
  int64_t modified_ns = 0;       // since 1970
  int64_t direct_alignment = 0;  // of direct reads; 0: none of this object
};

// Bytes of an object: a view into `buffer`.
struct ObjectData {
  AlignedBuf buffer;
  std::byte* begin = nullptr;
  int64_t length = 0;
};

// Called every few milliseconds while a call waits; throws to give up.
using WaitCallback = std::function<void()>;

// Thread-safe. All paths are errors' subjects: whatever goes wrong is an Error that names one.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  virtual ObjectInfo stat(const std::string& path) = 0;
  // Throws Error(range) for a range that does not lie within the object.
  virtual ObjectData get_range(const std::string& path, ByteRange range,
                               const WaitCallback& on_wait) = 0;
  virtual ObjectData get(const std::string& path, const WaitCallback& on_wait) = 0;
  // Every object whose path begins with `prefix`, sorted.
  virtual std::vector<std::string> list(const std::string& prefix) = 0;
};

}  // namespace s3io
