#include "io/page_cache.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/align.h"

namespace s3io {
namespace {

#ifdef SYS_cachestat
constexpr long kCachestat = SYS_cachestat;
#else
constexpr long kCachestat = 451;  // the same on every architecture
#endif

// The kernel cuts what it is asked for at once to the readahead of the device: this is its default.
constexpr int64_t kMostAskedBytes = int64_t{128} << 10;

// As in linux/mman.h since 6.5.
struct CachestatRange {
  uint64_t offset;
  uint64_t length;
};
struct Cachestat {
  uint64_t cached_pages;
  uint64_t dirty_pages;
  uint64_t writeback_pages;
  uint64_t evicted_pages;
  uint64_t recently_evicted_pages;
};

}  // namespace

int64_t cached_bytes(int fd, int64_t offset, int64_t length) {
  CachestatRange range{static_cast<uint64_t>(offset), static_cast<uint64_t>(length)};
  Cachestat result{};
  if (::syscall(kCachestat, fd, &range, &result, 0) != 0) return -1;
  return static_cast<int64_t>(result.cached_pages) * ::sysconf(_SC_PAGESIZE);
}

int64_t bring_into_cache(int fd, int64_t offset, int64_t length) {
  int64_t missing = 0;
  for (const int64_t end = offset + length; offset < end; offset += kMostAskedBytes) {
    const int64_t part = std::min(kMostAskedBytes, end - offset);
    const int64_t cached = cached_bytes(fd, offset, part);
    if (cached >= part) continue;
    if (::posix_fadvise(fd, offset, part, POSIX_FADV_WILLNEED) != 0) break;
    missing += part - std::max<int64_t>(cached, 0);
  }
  return missing;
}

CacheState cache_state(int fd, int64_t offset, int64_t length) {
  const int64_t page_bytes = ::sysconf(_SC_PAGESIZE);
  const int64_t cached = cached_bytes(fd, offset, length);
  if (cached < 0) return CacheState::unknown;
  const int64_t begin = align_down(offset, page_bytes);
  const int64_t end = align_up(offset + length, page_bytes);
  return cached >= end - begin ? CacheState::cached : CacheState::missing;
}

}  // namespace s3io
