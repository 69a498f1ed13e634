// Asking for the records of a window ahead: once, in shares, and nothing else.
#include "reader/window_readahead.h"

#include <doctest/doctest.h>

#include <vector>

#include "data_set.h"
#include "io/page_cache.h"
#include "testing.h"

namespace s3io::testing {
namespace {

constexpr int64_t kRecordBytes = 4096;
constexpr int64_t kRecords = 4096;
constexpr int64_t kWindow = 1024;

using Config = WindowReadahead::Config;

int64_t asked_bytes(RecordSource& source) { return source.counters().filled_bytes; }

bool is_cached(const DataSet& data, int64_t record) {
  const DirectFile file(data.path(0), DirectMode::off, 0);
  return cache_state(file.buffered_fd(), record * kRecordBytes, kRecordBytes) == CacheState::cached;
}

TEST_CASE("a window and the next one are asked for, each record once") {
  const DataSet data(bytes_layout(kRecordBytes), 0, {kRecords}, 90);
  data.make_files_cold();
  if (cached_pages(data.path(0)) != 0) {
    MESSAGE("skipped: this file system keeps its files in memory");
    return;
  }
  const auto source = data.source({});
  const EpochPlan plan(window_order(block_order(kRecords, 32, 1), kWindow, 2), 0,
                       {.batch_size = 64});
  WindowReadahead readahead(*source, {.window_positions = kWindow, .share = 0, .count = 1});
  readahead.advance(plan, 0);
  const int64_t first = asked_bytes(*source);
  CHECK(first > 0);
  CHECK(first <= kWindow * kRecordBytes);
  for (int64_t group = 0; group < plan.num_groups(); ++group) {
    readahead.advance(plan, group);
    std::vector<int64_t> records;
    plan.records(group, records);
    for (const int64_t record : records) REQUIRE(is_cached(data, record));
  }
  CHECK(asked_bytes(*source) <= kRecords * kRecordBytes);
}

TEST_CASE("shares cover a window together") {
  const DataSet data(bytes_layout(kRecordBytes), 0, {kRecords}, 91);
  data.make_files_cold();
  if (cached_pages(data.path(0)) != 0) {
    MESSAGE("skipped: this file system keeps its files in memory");
    return;
  }
  const auto source = data.source({});
  const EpochPlan plan(window_order(block_order(kRecords, 32, 1), kWindow, 2), 0,
                       {.batch_size = 64});
  for (int64_t share = 0; share < 3; ++share) {
    WindowReadahead readahead(*source, {.window_positions = kWindow, .share = share, .count = 3});
    readahead.advance(plan, 20);  // in the middle of the second window
  }
  std::vector<int64_t> records(kWindow);
  plan.records_at(kWindow, records);
  for (const int64_t record : records) REQUIRE(is_cached(data, record));
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

}  // namespace
}  // namespace s3io::testing
