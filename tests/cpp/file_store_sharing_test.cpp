// One store used by many threads, over a fork, and while its files change.
#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <thread>

#include "leak_check.h"
#include "store_fixture.h"
#include "testing.h"

namespace s3io::testing::file_store_sharing_test {

TEST_CASE("many threads read at once through one store") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  std::vector<Bytes> contents;
  for (uint64_t number = 0; number < 4; ++number) {
    contents.push_back(random_bytes(400'000, 21 + number));
    write_file(folder.path(std::to_string(number)), contents.back());
  }
  for (const EngineKind engine : engines_here()) {
    FileSystemConfig config = small_chunks(DirectMode::automatic);
    config.buffer_pool = {.capacity = 3, .buffer_size = 1 << 19};  // fewer than threads
    FileStore store(config, engine);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < 6; ++seed) {
      threads.emplace_back([&, seed] {
        std::mt19937_64 random(seed);
        for (int round = 0; round < 30; ++round) {
          const size_t file = random() % 4;
          const auto offset = static_cast<int64_t>(random() % 400'000);
          const auto length = static_cast<int64_t>(random() % (400'000 - offset));
          const ObjectData data =
              store.get_range(folder.path(std::to_string(file)), {offset, length}, {});
          if (!is_range(data, contents[file], offset, length)) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(store.stats().pool.in_use == 0);
  }
}

TEST_CASE("a file that was rewritten or replaced between two reads is read anew") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  FileStore store(small_chunks(DirectMode::automatic), EngineKind::automatic);
  for (int64_t round = 0; round < 5; ++round) {
    const Bytes contents = random_bytes(10'000 + round, static_cast<uint64_t>(30 + round));
    write_file(folder.path("new"), contents);
    std::filesystem::rename(folder.path("new"), path);
    CHECK(is_range(store.get(path, {}), contents, 0, 10'000 + round));
  }
}

TEST_CASE("what was put is what get gives, also over an object that is being held") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  for (const bool sync : {false, true}) {
    FileSystemConfig config = small_chunks(DirectMode::automatic);
    config.sync_writes = sync;
    FileStore store(config, EngineKind::automatic);
    const Bytes first = random_bytes(300'000, 38);
    const Bytes second = random_bytes(200'000, 39);
    store.put(path, first);
    const ObjectData held = store.get(path, {});
    store.put(path, second);
    CHECK(is_range(store.get(path, {}), second, 0, 200'000));
    CHECK(is_range(held, first, 0, 300'000));
  }
}

TEST_CASE("a caller who gives up while waiting for a buffer leaves the store usable") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(1000, 40);
  write_file(path, contents);
  FileSystemConfig config;
  config.buffer_pool = {.capacity = 1, .buffer_size = 4096};
  FileStore store(config, EngineKind::automatic);
  {
    const ObjectData held = store.get(path, {});
    const auto interrupt = [] { throw std::runtime_error("interrupted"); };
    CHECK_THROWS_AS(store.get(path, interrupt), std::runtime_error);
  }
  CHECK(is_range(store.get(path, {}), contents, 0, 1000));
  CHECK(store.stats().pool.in_use == 0);
}

TEST_CASE("a forked child reads through rings and buffers of its own") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(500'000, 41);
  write_file(path, contents);
  FileSystemConfig config = small_chunks(DirectMode::automatic);
#ifdef __SANITIZE_THREAD__  // which allows a forked child no threads: too short to be shared
  config.range_engine.chunk_size = 8192;
#endif
  config.buffer_pool = {.capacity = 1, .buffer_size = 1 << 20};
  auto store = std::make_unique<FileStore>(config, EngineKind::automatic);
  const ObjectData held = store->get(path, {});  // all there is of the parent's pool
  CHECK(run_in_child([&] {
          require_in_child(is_range(store->get(path, {}), contents, 0, 500'000), "wrong bytes");
          require_in_child(is_range(held, contents, 0, 500'000), "the held bytes changed");
          store.reset();
        }) == "");
  CHECK(is_range(held, contents, 0, 500'000));
  CHECK(store->stats().pool.in_use == 1);
}

}  // namespace s3io::testing::file_store_sharing_test
