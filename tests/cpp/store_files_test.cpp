// Open files kept for the next read, and files written whole or not at all.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <set>

#include "leak_check.h"
#include "store/atomic_file.h"
#include "store/file_cache.h"
#include "testing.h"

namespace s3io::testing {
namespace {

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

TEST_CASE("a file is written whole, replaces the old one and has an ordinary mode") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  for (const int64_t size : {0, 1, 5'000'000}) {
    for (const bool sync : {false, true}) {
      const Bytes contents = random_bytes(size, static_cast<uint64_t>(size));
      write_file_atomically(path, contents, sync);
      CHECK(std::filesystem::file_size(path) == static_cast<uintmax_t>(size));
      CHECK(read_plain(path, 0, size) == contents);
    }
  }
  const mode_t mask = ::umask(022);
  ::umask(mask);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("a write that fails leaves the old file, and nothing else") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path("taken/by a folder"));
  const Bytes contents = random_bytes(100, 3);
  const Caught error =
      caught([&] { write_file_atomically(folder.path("taken"), contents, false); });
  CHECK(error.says(folder.path("taken")));
  CHECK(caught([&] { write_file_atomically(folder.path("no/folder"), contents, true); }).kind ==
        ErrorKind::not_found);
  CHECK(entries_of(folder.path("")) == std::vector<std::string>{"taken"});
}

}  // namespace
}  // namespace s3io::testing
