// Open files kept for the next read.
#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "leak_check.h"
#include "store/file_cache.h"
#include "store/file_objects.h"
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

TEST_CASE("files that are named before are open when they are asked for, or their error is told") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  std::vector<ObjectToOpen> wanted;
  for (int number = 0; number < 20; ++number) {
    const std::string path = folder.path(std::to_string(number));
    write_file(path, random_bytes(10, 1));
    wanted.push_back({path, inspect_file(path).version});
  }
  FileObjects store({.direct = DirectMode::off});
  std::vector<std::shared_ptr<Object>> opened;
  store.open_soon(wanted);
  CHECK(store.open_all(wanted, opened) == 20);  // that took time: worth it
  CHECK(store.open_all(wanted, opened) == 0);
  REQUIRE(opened.size() == 40);
  for (size_t index = 0; index < 40; ++index)
    CHECK(opened[index]->path() == wanted[index % 20].path);
  store.open_soon(wanted);  // nothing is left to open
  CHECK(store.open_all(wanted, opened) == 0);

  std::filesystem::remove(wanted[7].path);
  FileObjects other({.direct = DirectMode::off});
  other.open_soon(wanted);
  CHECK(caught([&] { other.open_all(wanted, opened); }).kind == ErrorKind::not_found);
  other.open_soon(wanted);  // and never asked for
}

}  // namespace s3io::testing::store_files_test
