// Objects over files: whole and in ranges, with a pool and without, listed, refused.
#include "store/file_store.h"

#include <doctest/doctest.h>

#include <limits>
#include <random>

#include "leak_check.h"
#include "store_fixture.h"
#include "testing.h"

namespace s3io::testing::file_store_test {

constexpr int64_t kFileBytes = 3'000'123;

TEST_CASE("objects and any range of them are what a plain read gives") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(kFileBytes, 15);
  write_file(path, contents);
  for (const EngineKind engine : engines_here()) {
    for (const DirectMode mode : modes_for(path)) {
      for (const bool with_pool : {false, true}) {
        for (const bool splits : {false, true}) {
          FileSystemConfig config = small_chunks(mode);
          config.enable_range_engine = splits;
          if (with_pool) config.buffer_pool = {.capacity = 2, .buffer_size = 1 << 20};
          FileStore store(config, engine);
          CHECK(is_range(store.get(path, {}), contents, 0, kFileBytes));
          std::mt19937_64 random(16);
          for (int round = 0; round < rounds(30); ++round) {
            const auto offset = static_cast<int64_t>(random() % kFileBytes);
            const auto length = static_cast<int64_t>(random() % (kFileBytes - offset));
            CHECK(is_range(store.get_range(path, {offset, length}, {}), contents, offset, length));
          }
          const FileStoreStats stats = store.stats();
          CHECK(stats.engine == name_of(engine));
          CHECK(stats.pool.in_use == 0);
          CHECK(stats.pool.taken == (with_pool ? 1 + rounds(30) : 0));
          CHECK((stats.pool.oversize > 0) == with_pool);  // the whole file is larger than a buffer
        }
      }
    }
  }
}

TEST_CASE(
    "a large read is split into ranges, a small one or a store without the range engine is not") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(1 << 20, 17);
  write_file(path, contents);
  FileSystemConfig config = small_chunks(DirectMode::off);
  const auto requests = [&](int64_t length) {
    FileStore store(config, EngineKind::automatic);
    CHECK(is_range(store.get_range(path, {0, length}, {}), contents, 0, length));
    return store.stats().requests;
  };
  CHECK(requests(1 << 20) == 16);
  CHECK(requests(199'999) == 1);
  config.enable_range_engine = false;
  CHECK(requests(1 << 20) == 1);
}

TEST_CASE("empty objects and empty ranges have no bytes and are no errors") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  write_file(folder.path("empty"), {});
  write_file(folder.path("data"), random_bytes(1000, 18));
  for (const DirectMode mode : modes_for(folder.path("data"))) {
    FileStore store(small_chunks(mode), EngineKind::automatic);
    CHECK(store.get(folder.path("empty"), {}).length == 0);
    CHECK(store.get_range(folder.path("empty"), {0, 0}, {}).length == 0);
    CHECK(store.get_range(folder.path("data"), {500, 0}, {}).length == 0);
    CHECK(store.get_range(folder.path("data"), {1000, 0}, {}).length == 0);
  }
}

TEST_CASE("ranges that do not lie within the object are refused") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(1000, 19));
  FileStore store({}, EngineKind::automatic);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const ByteRange range : {ByteRange{0, 1001}, ByteRange{1000, 1}, ByteRange{2000, 0},
                                ByteRange{1, 1000}, ByteRange{1, kMost - 1}}) {
    const Caught error = caught([&] { store.get_range(path, range, {}); });
    CHECK(error.kind == ErrorKind::range);
    CHECK(error.says(path));
    CHECK(error.says("1000"));
  }
}

TEST_CASE("what is missing or no file is a typed error from every call, and the pool stays whole") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  FileSystemConfig config;
  config.buffer_pool = {.capacity = 1, .buffer_size = 4096};
  FileStore store(config, EngineKind::automatic);
  for (const std::string name : {"missing", ""}) {
    const std::string path = folder.path(name);
    const ErrorKind expected = name.empty() ? ErrorKind::config : ErrorKind::not_found;
    CHECK(caught([&] { store.get(path, {}); }).kind == expected);
    CHECK(caught([&] { store.get_range(path, {0, 1}, {}); }).kind == expected);
    CHECK(caught([&] { store.stat(path); }).kind == expected);
  }
  CHECK(store.stats().pool.in_use == 0);
}

TEST_CASE("stat says size, time and alignment without reading") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(12'345, 20));
  FileStore store({}, EngineKind::automatic);
  const ObjectInfo info = store.stat(path);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(info.version.size_bytes == 12'345);
  CHECK(info.version.modified_ns == status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec);
  CHECK(store.stats().requests == 0);
}

TEST_CASE("list gives every file whose path begins with the prefix, sorted") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path("a/deep"));
  std::filesystem::create_directories(folder.path("b"));
  for (const char* name : {"a/2", "a/10", "a/deep/x", "ab", "b/1"}) {
    write_file(folder.path(name), {});
  }
  FileStore store({}, EngineKind::automatic);
  using Paths = std::vector<std::string>;
  CHECK(store.list(folder.path("a")) ==
        Paths{folder.path("a/10"), folder.path("a/2"), folder.path("a/deep/x"), folder.path("ab")});
  CHECK(store.list(folder.path("a/")) ==
        Paths{folder.path("a/10"), folder.path("a/2"), folder.path("a/deep/x")});
  CHECK(store.list(folder.path("a/de")) == Paths{folder.path("a/deep/x")});
  CHECK(store.list(folder.path("nothing")).empty());
  CHECK(caught([&] { store.list(folder.path("no/such/folder")); }).kind == ErrorKind::not_found);
}

TEST_CASE("nonsense configurations are refused when the store is made") {
  std::vector<FileSystemConfig> bad(9);
  bad[0].alignment = 3;
  bad[1].alignment = -512;
  bad[2].alignment = int64_t{1} << 40;
  bad[3].min_io_size = -1;
  bad[4].range_engine.chunk_size = 0;
  bad[5].range_engine.max_concurrent_ranges = 0;
  bad[6].range_engine.min_split_size = -1;
  bad[7].range_engine.range_timeout_s = 0;
  bad[8].buffer_pool = {.capacity = 0};
  for (const FileSystemConfig& config : bad) {
    CHECK(caught([&] { FileStore(config, EngineKind::automatic); }).kind == ErrorKind::config);
  }
}

TEST_CASE("a pool that is not aligned enough for direct reads is refused, naming the setting") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(1000, 42));
  if (!direct_reads_work(path)) return;
  FileSystemConfig config;
  config.buffer_pool = {.capacity = 1, .buffer_size = 4096, .alignment = 64};
  FileStore store(config, EngineKind::automatic);
  const Caught error = caught([&] { store.get(path, {}); });
  CHECK(error.kind == ErrorKind::config);
  CHECK(error.says("BufferPoolConfig.alignment"));
}

}  // namespace s3io::testing::file_store_test
