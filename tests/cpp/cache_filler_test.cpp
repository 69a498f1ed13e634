// Filling the page cache: all of it, in shares, and nothing where there is nothing to fill.
#include "reader/cache_filler.h"

#include <doctest/doctest.h>

#include "leak_check.h"
#include "testing.h"

namespace s3io::testing {
namespace {

// Three files of odd sizes and an empty one, none of them in the page cache; empty where the file
// system keeps files in memory.
std::vector<std::string> cold_files(const TemporaryFolder& folder) {
  std::vector<std::string> paths;
  for (const int64_t size : {int64_t{3} << 20, int64_t{0}, int64_t{5'000'001}, int64_t{4097}}) {
    paths.push_back(folder.path(std::to_string(paths.size())));
    write_file(paths.back(), random_bytes(size, static_cast<uint64_t>(size)));
    make_cold(paths.back());
  }
  if (cached_pages(paths[0]) == 0) return paths;
  MESSAGE("skipped: this file system keeps its files in memory");
  return {};
}

void wait_for(const CacheFiller& filler) {
  const Clock::time_point deadline = deadline_after(30);
  while (!filler.is_done() && Clock::now() < deadline) std::this_thread::yield();
  REQUIRE(filler.is_done());
}

int64_t pages_of(const std::string& path) { return cached_pages(path); }

TEST_CASE("afterwards every page of every file is in the page cache, and counted once") {
  const TemporaryFolder folder;
  const std::vector<std::string> paths = cold_files(folder);
  if (paths.empty()) return;
  const auto filled = std::make_shared<std::atomic<int64_t>>(0);
  const CacheFiller filler(paths, 0, 1, filled);
  wait_for(filler);
  CHECK(pages_of(paths[0]) == 768);
  CHECK(pages_of(paths[2]) == 1221);
  CHECK(pages_of(paths[3]) == 2);
  CHECK(*filled == (3 << 20) + 5'000'001 + 4097);

  const CacheFiller again(paths, 0, 1, filled);
  wait_for(again);
  CHECK(*filled == (3 << 20) + 5'000'001 + 4097);
}

TEST_CASE("shares cover all bytes together") {
  const TemporaryFolder folder;
  const std::vector<std::string> paths = cold_files(folder);
  if (paths.empty()) return;
  const auto filled = std::make_shared<std::atomic<int64_t>>(0);
  for (int64_t share = 0; share < 3; ++share) wait_for(CacheFiller(paths, share, 3, filled));
  CHECK(pages_of(paths[0]) == 768);
  CHECK(pages_of(paths[2]) == 1221);
  CHECK(pages_of(paths[3]) == 2);
}

TEST_CASE("files that are missing are left to the reader, and stopping leaves nothing behind") {
  const TemporaryFolder folder;
  const LeakCheck leaks;
  const auto filled = std::make_shared<std::atomic<int64_t>>(0);
  wait_for(CacheFiller({folder.path("missing")}, 0, 1, filled));
  CHECK(*filled == 0);
  const std::vector<std::string> paths = cold_files(folder);
  { const CacheFiller stopped(paths, 0, 1, filled); }
  CHECK(caught([&] { const CacheFiller none(paths, 2, 2, filled); }).kind == ErrorKind::config);
}

}  // namespace
}  // namespace s3io::testing
