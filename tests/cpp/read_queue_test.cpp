// Whole ranges through an engine: split, read from the device or the page cache, given up.
#include "io/read_queue.h"

#include <doctest/doctest.h>

#include <random>

#include "io/fault_engine.h"
#include "leak_check.h"
#include "memory/slab.h"
#include "read_set.h"
#include "testing.h"

namespace s3io::testing::read_queue_test {

constexpr int64_t kFileBytes = 500'123;

std::unique_ptr<IoEngine> lossy_engine(int64_t lost_read) {
  FaultPlan plan;
  plan.by_number[lost_read] = {.lost = true};
  return std::make_unique<FaultEngine>(make_engine({.depth = 4}), plan);
}

TEST_CASE("ranges come back whole for any engine, mode, chunk size and state of the page cache") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(kFileBytes, 6);
  write_file(path, contents);
  std::mt19937_64 random(7);
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : modes_for(path)) {
      for (const int64_t chunk_bytes : {4096, 65536, 1 << 20}) {
        for (const auto& [cold, fill_block_bytes] :
             {std::pair{true, 0}, {false, 0}, {true, 65536}, {true, 4096}, {false, 65536}}) {
          DirectFile file(path, mode, 0);
          ReadCounters counters;
          ReadQueue queue(make_engine({.kind = kind, .depth = 8}),
                          {.chunk_bytes = chunk_bytes, .fill_block_bytes = fill_block_bytes},
                          &counters);
          ReadSet reads(file, random_ranges(random, 40, kFileBytes, 100'000));
          if (cold) make_cold(path);
          reads.run(queue);
          CHECK(reads.check(contents).empty());
          CHECK(counters.retries == 0);
          CHECK(counters.direct_refused == 0);
        }
      }
    }
  }
}

TEST_CASE("a range that ends with the file, and one of a single byte, come back whole") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  for (const int64_t file_bytes : {1, 511, 512, 513, 4096, 5000}) {
    const Bytes contents = random_bytes(file_bytes, 8);
    write_file(path, contents);
    for (const DirectMode mode : modes_for(path)) {
      DirectFile file(path, mode, 0);
      ReadCounters counters;
      ReadQueue queue(make_engine({.depth = 2}), {.chunk_bytes = 4096}, &counters);
      ReadSet reads(file, {{0, file_bytes}, {file_bytes - 1, 1}, {0, 1}});
      reads.run(queue);
      CHECK(reads.check(contents).empty());
    }
  }
}

TEST_CASE("bytes are counted where they came from, and auto prefers the page cache") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(1 << 20, 9);
  write_file(path, contents);
  const auto read_all = [&](DirectMode mode, ReadCounters& counters, int64_t min_direct_bytes) {
    DirectFile file(path, mode, 0);
    ReadQueue queue(make_engine({.depth = 4}),
                    {.chunk_bytes = 65536, .min_direct_bytes = min_direct_bytes}, &counters);
    ReadSet reads(file, {{0, 1 << 20}});
    reads.run(queue);
    CHECK(reads.check(contents).empty());
  };
  ReadCounters off;
  read_all(DirectMode::off, off, 0);
  CHECK(off.buffered_bytes == 1 << 20);
  CHECK(off.direct_bytes + off.cached_bytes == 0);
  CHECK(off.requests >= 16);
  if (!direct_reads_work(path)) return;

  ReadCounters required;
  read_all(DirectMode::require, required, 0);  // although it is in the page cache
  CHECK(required.direct_bytes == 1 << 20);
  CHECK(required.cached_bytes + required.buffered_bytes == 0);
  CHECK(required.requests == 16);

  ReadCounters warm;
  read_all(DirectMode::automatic, warm, 0);
  CHECK(warm.buffered_bytes == 0);
  if (warm.cached_bytes > 0) CHECK(warm.cached_bytes == 1 << 20);  // else it cannot be asked

  make_cold(path);
  if (cached_pages(path) == 0) {  // else a file system in memory
    ReadCounters cold;
    read_all(DirectMode::automatic, cold, 0);
    CHECK(cold.direct_bytes == 1 << 20);
    CHECK(cold.cached_bytes + cold.buffered_bytes == 0);
  }

  ReadCounters small;
  read_all(DirectMode::automatic, small, 2 << 20);  // "too short" for the device
  CHECK(small.buffered_bytes == 1 << 20);
}

TEST_CASE("after many hits in a row only some ranges are looked up, and read right all the same") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(4 << 20, 11);
  write_file(path, contents);
  DirectFile file(path, DirectMode::automatic, 0);
  if (!file.can_read_direct() || !has_cachestat(path)) {
    MESSAGE("NOT TESTED: no direct reads here, or a kernel without cachestat(2)");
    return;
  }
  ReadCounters counters;
  ReadQueue queue(make_engine({.depth = 4}), {.chunk_bytes = 4096}, &counters);
  const auto read_all = [&] {
    ReadSet reads(file, {{0, 4 << 20}});
    reads.run(queue);
    CHECK(reads.check(contents).empty());
  };
  read_all();  // 1024 chunks: after 256 only one in 17 is looked up
  CHECK(counters.direct_bytes == 0);
  CHECK(counters.cached_bytes == (256 + 768 / 17) * 4096);
  CHECK(counters.buffered_bytes == (768 - 768 / 17) * 4096);

  make_cold(path);
  if (cached_pages(path) > 0) return;
  const int64_t before = counters.buffered_bytes;
  std::vector<ByteRange> far_apart;  // no readahead brings two of them
  for (int64_t offset = 0; offset < 4 << 20; offset += 1 << 16) far_apart.push_back({offset, 4096});
  REQUIRE(::posix_fadvise(file.buffered_fd(), 0, 0, POSIX_FADV_RANDOM) == 0);
  ReadSet reads(file, far_apart);
  reads.run(queue);
  CHECK(reads.check(contents).empty());
  CHECK(counters.buffered_bytes - before < 17 * 4096);  // until the first sample
  CHECK(counters.direct_bytes > 48 * 4096);
}

TEST_CASE("what is missing comes into the page cache with its neighbours, and is counted once") {
  constexpr int64_t kBlock = 65536;
  constexpr int64_t kPage = 4096;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(10 * kBlock + 100, 12);
  write_file(path, contents);
  make_cold(path);
  if (cached_pages(path) > 0 || !direct_reads_work(path) || !has_cachestat(path)) {
    MESSAGE("NOT TESTED: files are kept in memory here, or no direct reads, or no cachestat(2)");
    return;
  }
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : modes_for(path)) {
      make_cold(path);
      DirectFile file(path, mode, 0);
      ReadCounters counters;
      ReadQueue queue(make_engine({.kind = kind, .depth = 4}), {.fill_block_bytes = kBlock},
                      &counters);
      const auto read = [&](const std::vector<ByteRange>& ranges) {
        ReadSet reads(file, ranges);
        reads.run(queue);
        CHECK(reads.check(contents).empty());
      };
      // Of the second block; over the border of the fourth and fifth; the file's last bytes.
      read({{kBlock + 5000, 100}, {5 * kBlock - 1, 2}, {10 * kBlock + 99, 1}});
      if (mode == DirectMode::require) {
        CHECK(counters.filled_bytes == 0);
        CHECK(counters.direct_bytes > 0);
        CHECK(cached_pages(path) == 0);
        continue;
      }
      CHECK(counters.filled_bytes == 3 * kBlock + 100);
      CHECK(counters.direct_bytes == 0);
      CHECK(cached_pages(path) == 3 * kBlock / kPage + 1);

      read({{kBlock, kBlock}, {4 * kBlock, 2 * kBlock}});
      CHECK(counters.filled_bytes == 3 * kBlock + 100);
      CHECK(counters.cached_bytes == 3 * kBlock);
      read({{0, 10 * kBlock}});
      CHECK(counters.filled_bytes == 10 * kBlock + 100);
      CHECK(counters.direct_bytes == 0);
    }
  }
}

TEST_CASE("registered buffers are used and bring the same bytes") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(100'000, 10);
  write_file(path, contents);
  for (const DirectMode mode : modes_for(path)) {
    DirectFile file(path, mode, 0);
    ReadCounters counters;
    ReadQueue queue(make_engine({.depth = 4}), {.chunk_bytes = 8192}, &counters);
    Slab slab({1, 1 << 20, 4096});
    slab.prepare(0, 1 << 20);
    const bool registered = queue.register_buffer(0, {slab.slot_data(0), 1 << 20});
    CHECK(registered == (queue.name() == "uring"));
    RangeRead read{.object = &file,
                   .offset = 0,
                   .length = 100'000,
                   .data = slab.slot_data(0),
                   .buffer_index = registered ? 0 : -1};
    queue.push(read);
    std::vector<RangeRead*> finished;
    while (!queue.idle()) queue.run(finished, kWaitSlice);
    REQUIRE_FALSE(read.error);
    CHECK(equals(read.data, contents));
  }
}

TEST_CASE("a file that was truncated after it was opened is an error, never wrong bytes") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(100'000, 11);
  for (const EngineKind kind : engines_here()) {
    write_file(path, contents);
    for (const DirectMode mode : modes_for(path)) {
      for (const int64_t left : {0, 1, 4096, 50'000, 99'999}) {
        write_file(path, contents);
        DirectFile file(path, mode, 0);
        std::filesystem::resize_file(path, static_cast<uintmax_t>(left));
        ReadCounters counters;
        ReadQueue queue(make_engine({.kind = kind, .depth = 2}), {.chunk_bytes = 4096}, &counters);
        ReadSet reads(file, {{0, 100'000}, {0, 1}});
        reads.run(queue);
        const std::vector<Error> errors = reads.check(contents);
        REQUIRE(errors.size() == (left == 0 ? 2 : 1));
        CHECK(errors[0].kind() == ErrorKind::file_changed);
        CHECK(std::string(errors[0].what()).find(message("byte ", left)) != std::string::npos);
      }
    }
  }
}

TEST_CASE("after everything was abandoned the queue reads as before") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(kFileBytes, 12);
  write_file(path, contents);
  for (const EngineKind kind : engines_here()) {
    DirectFile file(path, DirectMode::automatic, 0);
    ReadCounters counters;
    ReadQueue queue(make_engine({.kind = kind, .depth = 4}), {.chunk_bytes = 4096}, &counters);
    for (int round = 0; round < 5; ++round) {
      ReadSet given_up(file, {{0, kFileBytes}, {0, 1}});
      given_up.push(queue);
      std::vector<RangeRead*> finished;
      queue.run(finished, milliseconds(0));
      REQUIRE(queue.abandon(milliseconds(30'000)));
      CHECK(queue.idle());
      ReadSet reads(file, {{100, 200'000}, {7, 7}});
      reads.run(queue);
      CHECK(reads.check(contents).empty());
    }
  }
}

TEST_CASE("reads that never come back do not hold up the others, and abandoning them is bounded") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(kFileBytes, 13);
  write_file(path, contents);
  DirectFile file(path, DirectMode::off, 0);
  ReadCounters counters;
  ReadQueue queue(lossy_engine(0), {}, &counters);
  ReadSet lost(file, {{0, 1000}});
  lost.push(queue);
  ReadSet reads(file, {{1000, 1000}, {2000, 1000}});
  reads.push(queue);
  std::vector<RangeRead*> finished;
  while (finished.size() < 2) queue.run(finished, kWaitSlice);
  CHECK(reads.check(contents).empty());
  CHECK(queue.completions() == 2);
  queue.run(finished, milliseconds(0));
  CHECK(finished.size() == 2);
  CHECK_FALSE(queue.idle());
  CHECK_FALSE(queue.abandon(milliseconds(1)));
}

}  // namespace s3io::testing::read_queue_test
