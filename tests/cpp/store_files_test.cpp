// Open files kept for the next read.
#include <doctest/doctest.h>

#include <set>

#include "leak_check.h"
#include "store/file_cache.h"
#include "testing.h"

namespace s3io::testing::store_files_test {

int64_t open_descriptors() { return static_cast<int64_t>(Resources::now().files.size()); }

TEST_CASE("no more files are kept open than allowed, the least recently used goes first") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  for (int number = 0; number < 10; ++number) {
    write_file(folder.path(std::to_string(number)), random_bytes(10, 1));
  }
  FileCache cache(DirectMode::off, 0, 3);
  const int64_t before = open_descriptors();
  const auto open = [&](int number) { return cache.open(folder.path(std::to_string(number))); };
  const std::shared_ptr<DirectFile> first = open(0);
  for (int number = 1; number < 10; ++number) {
    open(number);
    CHECK(open(0) == first);  // used again and again, so never the one that goes
  }
  CHECK(open_descriptors() == before + 3);
  const std::shared_ptr<DirectFile> ninth = open(9);
  for (int number = 1; number < 4; ++number) open(number);
  CHECK(open_descriptors() == before + 5);  // what is held stays open for its holder
  CHECK(ninth->size() == 10);
  CHECK(open(9) != ninth);
}

TEST_CASE("a file is opened anew only when the path names another version of it") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(10, 1));
  FileCache cache(DirectMode::automatic, 0);
  const std::shared_ptr<DirectFile> first = cache.open(path);
  CHECK(cache.open_current(path) == first);
  write_file(folder.path("new"), random_bytes(10, 2));
  std::filesystem::rename(folder.path("new"), path);
  CHECK(cache.open(path) == first);
  const std::shared_ptr<DirectFile> second = cache.open_current(path);
  CHECK(second != first);
  CHECK(cache.open(path) == second);
  std::filesystem::remove(path);
  CHECK(caught([&] { cache.open_current(path); }).kind == ErrorKind::not_found);
}

}  // namespace s3io::testing::store_files_test
