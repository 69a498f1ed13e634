// Asking for the records of a window ahead: once, in shares, and nothing else.
#include "reader/window_readahead.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "data_set.h"
#include "io/page_cache.h"
#include "testing.h"

namespace s3io::testing::window_readahead_test {

constexpr int64_t kRecordBytes = 4096;
constexpr int64_t kRecords = 4096;
constexpr int64_t kWindow = 1024;

using Config = WindowReadahead::Config;

int64_t asked_bytes(RecordSource& source) { return source.counters().reads.filled_bytes; }

bool is_cached(const DirectFile& file, int64_t record) {
  return cache_state(file.buffered_fd(), record * kRecordBytes, kRecordBytes) == CacheState::cached;
}

// Files that are not in the page cache; none where the file system keeps its files in memory.
std::unique_ptr<DataSet> cold_data(int64_t num_records) {
  auto data = std::make_unique<DataSet>(bytes_layout(kRecordBytes), 0,
                                        std::vector<int64_t>{num_records}, 90);
  data->make_files_cold();
  if (cached_pages(data->path(0)) == 0) return data;
  MESSAGE("skipped: this file system keeps its files in memory");
  return nullptr;
}

TEST_CASE("every record is there when its batch is read, however short or long windows are") {
  const auto data = cold_data(kRecords);
  if (data == nullptr) return;
  for (const int64_t window : {40, 64, 512, 1024, 2048, 4096}) {
    for (const auto& sharing : {std::pair{1, 1}, {3, 2}, {8, 1}}) {
      const int workers = sharing.first, group_size = sharing.second;
      CAPTURE(window);
      CAPTURE(workers);
      data->make_files_cold();
      const RecordOrderPtr order = window_order(block_order(kRecords, 32, 1), window, 2);
      const auto source = data->source({});
      std::vector<EpochPlan> plans;
      std::vector<WindowReadahead> readers;
      for (int64_t worker = 0; worker < workers; ++worker) {
        plans.emplace_back(order, 0,
                           EpochPlan::Config{.batch_size = 24,
                                             .worker = worker,
                                             .num_workers = workers,
                                             .group_size = group_size});
        readers.emplace_back(*source, Config{window, worker, workers});
      }
      for (int64_t worker = 0; worker < workers; ++worker) {
        readers[static_cast<size_t>(worker)].advance(plans[static_cast<size_t>(worker)], 0);
      }
      const DirectFile file(data->path(0), DirectMode::off, 0);
      std::vector<int64_t> records;
      int64_t missing = 0;
      for (int64_t round = 0; round < plans[0].num_groups(); ++round) {
        for (size_t worker = 0; worker < plans.size(); ++worker) {
          if (round >= plans[worker].num_groups()) continue;
          readers[worker].advance(plans[worker], round);
          plans[worker].records(round, records);
          for (const int64_t record : records) missing += is_cached(file, record) ? 0 : 1;
        }
      }
      CHECK(missing == 0);
      CHECK(asked_bytes(*source) <= kRecords * kRecordBytes);
    }
  }
}

TEST_CASE("each share is its part of a window, and all of them are all of it") {
  const auto data = cold_data(kRecords);
  if (data == nullptr) return;
  const EpochPlan plan(window_order(block_order(kRecords, 32, 1), kWindow, 2), 0,
                       {.batch_size = 64});
  for (int64_t share = 0; share < 3; ++share) {
    const auto source = data->source({});
    WindowReadahead readahead(*source, {kWindow, share, 3});
    readahead.advance(plan, 24);                             // in the middle of the second window
    const int64_t two_windows = 2 * kWindow * kRecordBytes;  // this one, and the next
    CHECK(asked_bytes(*source) >= two_windows / 4);
    CHECK(asked_bytes(*source) <= two_windows / 2);
  }
  std::vector<int64_t> records(kWindow);
  plan.records_unordered(kWindow, records);
  const DirectFile file(data->path(0), DirectMode::off, 0);
  for (const int64_t record : records) REQUIRE(is_cached(file, record));
}

TEST_CASE("no call takes long: a large window is asked for in parts") {
  constexpr int64_t kMany = 12'000;
  const auto data = cold_data(kMany);
  if (data == nullptr) return;
  const auto source = data->source({});
  const EpochPlan plan(window_order(block_order(kMany, 32, 1), kMany, 2), 0, {.batch_size = 64});
  WindowReadahead readahead(*source, {kMany, 0, 1});
  int64_t before = 0;
  for (int64_t group = 0; group < 4; ++group) {
    readahead.advance(plan, group);
    CHECK(asked_bytes(*source) - before <= (17 << 20));
    before = asked_bytes(*source);
  }
  CHECK(before == kMany * kRecordBytes);
}

TEST_CASE("without windows nothing is asked for, and what makes no sense is refused") {
  const DataSet data(bytes_layout(kRecordBytes), 0, {64}, 92);
  const auto source = data.source({});
  const EpochPlan plan(block_order(64, 8, 1), 0, {.batch_size = 8});
  WindowReadahead readahead(*source, {});
  readahead.advance(plan, 0);
  CHECK(asked_bytes(*source) == 0);
  for (const Config& config :
       {Config{8, 2, 2}, Config{8, -1, 2}, Config{8, 0, 0}, Config{-1, 0, 1}}) {
    CHECK(caught([&] { const WindowReadahead none(*source, config); }).kind == ErrorKind::config);
  }
}

TEST_CASE("files that are gone are left to the reader") {
  const DataSet data(bytes_layout(kRecordBytes), 0, {64}, 93);
  const auto source = data.source({});
  write_file(data.path(0), random_bytes(100, 1));
  const EpochPlan plan(block_order(64, 8, 1), 0, {.batch_size = 8});
  WindowReadahead readahead(*source, {.window_positions = 16, .share = 0, .count = 1});
  readahead.advance(plan, 0);
  CHECK(asked_bytes(*source) == 0);
}

}  // namespace s3io::testing::window_readahead_test
