// Which records make up which batch: for every rank, worker, start and size of groups. The plain
// listing of tests/test_epoch_plan.py goes further into the end of an epoch.
#include "order/epoch_plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "testing.h"

namespace s3io::testing::epoch_plan_test {

constexpr int64_t kMostPositions = RecordOrder::kMostPositions;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// The batches of all workers of a rank, in turn.
std::vector<std::vector<int64_t>> batches_of_rank(const RecordOrderPtr& order, int64_t epoch,
                                                  EpochPlan::Config config) {
  std::vector<std::vector<int64_t>> batches;
  for (config.worker = 0; config.worker < config.num_workers; ++config.worker) {
    const EpochPlan plan(order, epoch, config);
    batches.resize(static_cast<size_t>(plan.num_steps()));
    for (int64_t batch = 0; batch < plan.num_groups(); ++batch) {
      plan.records(batch, batches[static_cast<size_t>(plan.step_of(batch))]);
    }
  }
  return batches;
}

TEST_CASE("the ranks' batches in turn are the rest of the epoch, each record once, in order") {
  std::mt19937_64 random(50);
  for (int round = 0; round < 500; ++round) {
    CAPTURE(round);
    const auto records = static_cast<int64_t>(random() % 60);
    const RecordOrderPtr order = shuffled_order(records, random());
    const auto epoch = static_cast<int64_t>(random() % 5);
    EpochPlan::Config config{
        .batch_size = static_cast<int64_t>(1 + random() % 9),
        .world_size = static_cast<int64_t>(1 + random() % 5),
        .num_workers = static_cast<int64_t>(1 + random() % 4),
        .start = static_cast<int64_t>(random() % static_cast<uint64_t>(records + 1))};
    std::vector<std::vector<std::vector<int64_t>>> by_rank;
    for (config.rank = 0; config.rank < config.world_size; ++config.rank) {
      by_rank.push_back(batches_of_rank(order, epoch, config));
    }
    config.rank = 0;
    const EpochPlan plan(order, epoch, config);
    std::vector<int64_t> delivered;
    for (size_t step = 0; step < static_cast<size_t>(plan.num_steps()); ++step) {
      for (const auto& batches : by_rank) {
        REQUIRE(batches.size() == static_cast<size_t>(plan.num_steps()));
        REQUIRE_FALSE(batches[step].empty());
        delivered.insert(delivered.end(), batches[step].begin(), batches[step].end());
      }
      const int64_t consumed = plan.consumed_after(static_cast<int64_t>(step) + 1);
      CHECK(consumed == std::min(records, config.start + static_cast<int64_t>(delivered.size())));
    }
    std::vector<int64_t> expected(static_cast<size_t>(records));
    order->epoch(epoch)->records(0, expected);
    std::vector<int64_t> padding(static_cast<size_t>(plan.padded_records()));
    for (size_t index = 0; index < padding.size(); ++index) {
      padding[index] = expected[index % expected.size()];
    }
    expected.erase(expected.begin(), expected.begin() + config.start);
    expected.insert(expected.end(), padding.begin(), padding.end());
    CHECK(delivered == expected);
  }
}

TEST_CASE("groups are successive batches of one worker") {
  const RecordOrderPtr order = shuffled_order(100, 3);
  for (const int64_t group_size : {1, 2, 5, 1000}) {
    EpochPlan::Config config{
        .batch_size = 3, .rank = 1, .world_size = 2, .worker = 1, .num_workers = 2, .start = 4};
    const EpochPlan single(order, 7, config);
    config.group_size = group_size;
    const EpochPlan grouped(order, 7, config);
    CHECK(grouped.num_local_batches() == single.num_local_batches());
    CHECK(grouped.num_groups() == (single.num_groups() + group_size - 1) / group_size);
    for (int64_t group = 0; group < grouped.num_groups(); ++group) {
      std::vector<int64_t> expected;
      const int64_t end = std::min((group + 1) * group_size, single.num_groups());
      for (int64_t batch = group * group_size; batch < end; ++batch) {
        std::vector<int64_t> records;
        single.records(batch, records);
        expected.insert(expected.end(), records.begin(), records.end());
      }
      std::vector<int64_t> records{99, 99};
      grouped.records(group, records);
      CHECK(records == expected);
      CHECK(static_cast<int64_t>(records.size()) <= grouped.max_group_records());
    }
  }
}

TEST_CASE("nonsense is refused") {
  const std::vector<EpochPlan::Config> bad{
      {.batch_size = 0},
      {.batch_size = -4},
      {.batch_size = kMost},
      {.batch_size = 1 << 30, .group_size = 1 << 30},
      {.batch_size = 1 << 30, .world_size = int64_t{1} << 33},
      {.drop_last = true, .pad_last = true},
      {.rank = 1, .world_size = 1},
      {.rank = -1, .world_size = 1},
      {.world_size = 0},
      {.worker = 1, .num_workers = 1},
      {.worker = -1, .num_workers = 1},
      {.num_workers = 0},
      {.group_size = 0},
      {.start = -1},
      {.start = 6},
  };
  for (const EpochPlan::Config& config : bad) {
    CHECK(caught([&] { EpochPlan(sequential_order(5), 0, config); }).kind == ErrorKind::config);
  }
  CHECK(caught([&] { EpochPlan(sequential_order(5), -1, {}); }).kind == ErrorKind::config);
  CHECK(caught([&] { EpochPlan(nullptr, 0, {}); }).kind == ErrorKind::config);
  const EpochPlan plan(sequential_order(5), 0, {});
  std::vector<int64_t> records;
  CHECK(caught([&] { plan.records(5, records); }).kind == ErrorKind::range);
  CHECK(caught([&] { plan.records(-1, records); }).kind == ErrorKind::range);
  CHECK(caught([&] { static_cast<void>(plan.consumed_after(-1)); }).kind == ErrorKind::range);
}

TEST_CASE("the largest numbers do not overflow") {
  const RecordOrderPtr order = shuffled_order(kMostPositions, 1);
  for (const bool pad_last : {false, true}) {
    for (const int64_t start : {int64_t{0}, kMostPositions - 5, kMostPositions}) {
      const int64_t world_size = int64_t{1} << 62;
      for (const int64_t rank : {int64_t{0}, world_size - 1}) {
        const EpochPlan plan(order, kMost,
                             {.pad_last = pad_last,
                              .rank = rank,
                              .world_size = world_size,
                              .worker = 0,
                              .num_workers = kMost,
                              .start = start});
        CHECK(plan.num_steps() == (start < kMostPositions ? 1 : 0));
        CHECK(plan.num_local_batches() == plan.num_steps());
        CHECK(plan.consumed_after(kMost) == kMostPositions);
        CHECK(plan.positions_between_groups() == kMostPositions);
        CHECK(caught([&] { plan.following(); }).kind == ErrorKind::config);
        std::vector<int64_t> records;
        for (int64_t group = 0; group < plan.num_groups(); ++group) plan.records(group, records);
        CHECK(records.size() == static_cast<size_t>(plan.num_groups()));
      }
    }
  }
  const EpochPlan plan(sequential_order(kMostPositions), 0, {.batch_size = 3, .num_workers = 2});
  std::vector<int64_t> records;
  plan.records(plan.num_groups() - 1, records);
  CHECK(records.back() <= kMostPositions - 1);
  CHECK(records.front() == 2 * (plan.num_groups() - 1) * 3);
}

}  // namespace s3io::testing::epoch_plan_test
