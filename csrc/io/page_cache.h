// Whether a range of a file is in the page cache.
#pragma once

#include <cstdint>

namespace s3io {

enum class CacheState : uint8_t {
  cached,   // every page of the range
  missing,  // at least one page is not there
  unknown,  // the kernel does not say: before Linux 6.5, or the file belongs to somebody else
};

// Bytes of the pages of a range that are in the page cache; -1: unknown. `length` is above 0.
int64_t cached_bytes(int fd, int64_t offset, int64_t length);

// Has the kernel read into the page cache what is missing of a range, and returns before it is
// there: how many bytes that are, all of them where the kernel does not say. Help, not duty: what
// cannot be read is left to whoever reads it. `length` is above 0.
int64_t bring_into_cache(int fd, int64_t offset, int64_t length);

// Asks with cachestat(2), which reads nothing and starts no readahead (a read with RWF_NOWAIT
// starts it, and so spoils the device for the direct read that follows). `length` is above 0.
CacheState cache_state(int fd, int64_t offset, int64_t length);

}  // namespace s3io
