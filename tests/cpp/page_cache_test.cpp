// Asking for the page cache's state: agrees with mincore, reads nothing.
#include "io/page_cache.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include "base/align.h"
#include "base/unique_fd.h"
#include "leak_check.h"
#include "testing.h"

namespace s3io::testing::page_cache_test {

TEST_CASE("a cold range is missing, a read one is cached, and asking brings nothing in") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(40 * kPageBytes + 7, 1));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.valid());
  make_cold(path);
  const CacheState cold = cache_state(fd.get(), 0, 40 * kPageBytes);
  if (cold == CacheState::unknown) {
    MESSAGE("skipped: this kernel has no cachestat (Linux 6.5)");
    return;
  }
  if (cached_pages(path) != 0) {
    MESSAGE("skipped: this file system keeps its files in memory");
    return;
  }
  CHECK(cold == CacheState::missing);

  read_plain(path, 0, 40 * kPageBytes + 7);
  CHECK(cached_pages(path) == 41);
  CHECK(cache_state(fd.get(), 0, 1) == CacheState::cached);
  CHECK(cache_state(fd.get(), 4095, 2) == CacheState::cached);
  CHECK(cache_state(fd.get(), 100, 40 * kPageBytes - 93) == CacheState::cached);
  CHECK(cache_state(fd.get(), 39 * kPageBytes, 2 * kPageBytes) == CacheState::cached);
}

TEST_CASE("a range that is cached in part counts as missing") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(64 * kPageBytes, 2));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.valid());
  read_plain(path, 0, 64 * kPageBytes);
  if (cache_state(fd.get(), 0, 1) == CacheState::unknown) return;
  REQUIRE(::posix_fadvise(fd.get(), 32 * kPageBytes, 32 * kPageBytes, POSIX_FADV_DONTNEED) == 0);
  if (cached_pages(path) == 64) {
    MESSAGE("skipped: this kernel kept the pages that it was asked to drop");
    return;
  }
  CHECK(cache_state(fd.get(), 0, 64 * kPageBytes) == CacheState::missing);
}

TEST_CASE("a range is brought in as a whole, however long, and what was there is not counted") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(100 * kPageBytes, 3));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.valid());
  make_cold(path);
  if (cached_pages(path) != 0 || cache_state(fd.get(), 0, 1) == CacheState::unknown) {
    MESSAGE("skipped: files are kept in memory here, or this kernel has no cachestat");
    return;
  }
  CHECK(bring_into_cache(fd.get(), 10 * kPageBytes, 80 * kPageBytes) == 80 * kPageBytes);
  CHECK(holds_soon([&] { return cached_pages(path) == 80; }));
  CHECK(bring_into_cache(fd.get(), 20 * kPageBytes, 75 * kPageBytes) == 5 * kPageBytes);
  CHECK(holds_soon([&] { return cached_pages(path) == 85; }));
}

TEST_CASE("what is no open file is unknown, and nothing is brought in from it") {
  CHECK(cache_state(-1, 0, 4096) == CacheState::unknown);
  CHECK(bring_into_cache(-1, 0, 4096) == 0);
}

}  // namespace s3io::testing::page_cache_test
