// Which records make up which batch, for every number of workers and size of groups.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "order/epoch_plan.h"
#include "testing.h"

namespace s3io::testing {
namespace {

// The batches of an epoch, written down plainly.
std::vector<std::vector<int64_t>> all_batches(int64_t records, int64_t batch_size, bool drop_last) {
  std::vector<std::vector<int64_t>> batches;
  for (int64_t record = 0; record < records; ++record) {
    if (record % batch_size == 0) batches.emplace_back();
    batches.back().push_back(record);
  }
  const bool is_short =
      !batches.empty() && static_cast<int64_t>(batches.back().size()) < batch_size;
  if (drop_last && is_short) batches.pop_back();
  return batches;
}

TEST_CASE("the workers' batches in turn are the epoch, each record once, in order") {
  std::mt19937_64 random(50);
  for (int round = 0; round < 300; ++round) {
    const auto records = static_cast<int64_t>(random() % 60);
    const auto batch_size = static_cast<int64_t>(1 + random() % 9);
    const auto workers = static_cast<int64_t>(1 + random() % 5);
    const auto group_size = static_cast<int64_t>(1 + random() % 4);
    const bool drop_last = random() % 2 == 0;
    const auto expected = all_batches(records, batch_size, drop_last);
    for (int64_t worker = 0; worker < workers; ++worker) {
      const EpochPlan plan({.num_records = records,
                            .batch_size = batch_size,
                            .drop_last = drop_last,
                            .worker = worker,
                            .num_workers = workers,
                            .group_size = group_size});
      CHECK(plan.num_batches() == static_cast<int64_t>(expected.size()));
      CHECK(plan.max_group_records() == std::min(batch_size * group_size, records));
      int64_t local = 0;
      for (int64_t group = 0; group < plan.num_groups(); ++group) {
        std::vector<int64_t> wanted;
        for (int64_t member = 0; member < group_size; ++member, ++local) {
          const auto batch = static_cast<size_t>(worker + local * workers);
          if (batch >= expected.size()) break;
          wanted.insert(wanted.end(), expected[batch].begin(), expected[batch].end());
        }
        std::vector<int64_t> got{99, 99};
        plan.records(group, got);
        CHECK(got == wanted);
        CHECK_FALSE(got.empty());
      }
      CHECK(local >= plan.num_local_batches());
      CHECK(worker + plan.num_local_batches() * workers >= plan.num_batches());
    }
  }
}

TEST_CASE("nonsense is refused") {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const std::vector<EpochPlan::Config> bad{
      {.num_records = -1},
      {.num_records = 5, .batch_size = 0},
      {.num_records = 5, .batch_size = -4},
      {.num_records = 5, .batch_size = kMost},
      {.num_records = 5, .batch_size = 1 << 30, .group_size = 1 << 30},
      {.num_records = 5, .group_size = 0},
      {.num_records = 5, .worker = 1, .num_workers = 1},
      {.num_records = 5, .worker = -1, .num_workers = 1},
      {.num_records = 5, .num_workers = 0},
  };
  for (const EpochPlan::Config& config : bad) {
    CHECK(caught([&] { EpochPlan plan(config); }).kind == ErrorKind::config);
  }
}

TEST_CASE("a plan of very many records costs nothing to make and to ask") {
  const EpochPlan plan({.num_records = int64_t{1} << 62, .batch_size = 3, .num_workers = 2});
  std::vector<int64_t> records;
  plan.records(plan.num_groups() - 1, records);
  CHECK(records.back() <= (int64_t{1} << 62) - 1);
  CHECK(records.front() == 2 * (plan.num_groups() - 1) * 3);
}

}  // namespace
}  // namespace s3io::testing
