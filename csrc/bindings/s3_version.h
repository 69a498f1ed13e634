// Versions of objects of S3, as Python has them.
#pragma once

#include <cstdint>
#include <tuple>

#include "store/store.h"

namespace s3io::bindings {

// (device, inode, size in bytes, modified_ns), as an ObjectVersion has them
using S3Version = std::tuple<uint64_t, uint64_t, int64_t, int64_t>;

inline ObjectVersion version_in(const S3Version& tuple) {
  const auto [device, inode, size_bytes, modified_ns] = tuple;
  return {device, inode, size_bytes, modified_ns};
}

inline S3Version tuple_of(const ObjectVersion& version) {
  return {version.device, version.inode, version.size_bytes, version.modified_ns};
}

}  // namespace s3io::bindings
