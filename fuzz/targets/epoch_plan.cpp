// Plans of any numbers: refused, or all ranks and workers together get every position of the epoch
// that remains, in equally many steps.
#include "order/epoch_plan.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "engine/input.h"

namespace s3io::fuzz {
namespace {

constexpr int64_t kMostListed = 400;
constexpr int64_t kMostInGroup = 10'000;

RecordOrderPtr any_order(Input& input) {
  const int64_t records = input.number();
  if (input.flag()) return sequential_order(records);
  return window_order(block_order(records, input.number(), input.bits()), input.number(), 1);
}

EpochPlan::Config any_config(Input& input) {
  return {.batch_size = input.number(),
          .drop_last = input.flag(),
          .pad_last = input.flag(),
          .rank = input.number(),
          .world_size = input.number(),
          .worker = input.number(),
          .num_workers = input.number(),
          .group_size = input.number(),
          .start = input.number()};
}

// What anybody may ask of one plan.
void ask(const EpochPlan& plan, Input& input) {
  require(plan.num_steps() >= 0 && plan.num_local_batches() >= 0 && plan.num_groups() >= 0);
  require(plan.dropped_records() >= 0 && plan.padded_records() >= 0);
  const int64_t steps = input.between(0, std::numeric_limits<int64_t>::max());
  const int64_t consumed = plan.consumed_after(steps);
  require(consumed >= 0 && consumed <= plan.num_positions());
  require(plan.positions_between_groups() > 0);
  if (plan.num_groups() == 0) return;
  const int64_t group = input.between(0, plan.num_groups() - 1);
  require(plan.step_of(plan.num_local_batches() - 1) < plan.num_steps());
  require(plan.first_position(group) >= 0);
  if (plan.max_group_records() > kMostInGroup) return;
  std::vector<int64_t> records;
  plan.records(group, records);
  require(!records.empty() && std::ssize(records) <= plan.max_group_records());
  for (const int64_t record : records) require(record >= 0 && record < plan.num_records());
}

// Counts what every worker of one rank reads. All steps of the rank must be among them.
void count(const RecordOrderPtr& order, int64_t epoch, EpochPlan::Config config,
           std::map<int64_t, int64_t>& seen) {
  int64_t batches = 0;
  for (config.worker = 0; config.worker < config.num_workers; ++config.worker) {
    const EpochPlan plan(order, epoch, config);
    batches += plan.num_local_batches();
    std::vector<int64_t> records;
    for (int64_t group = 0; group < plan.num_groups(); ++group) {
      plan.records(group, records);
      for (const int64_t record : records) ++seen[record];
    }
    if (config.worker + 1 == config.num_workers) require(batches == plan.num_steps());
  }
}

void check_all(const RecordOrderPtr& order, int64_t epoch, EpochPlan::Config config) {
  std::map<int64_t, int64_t> seen;
  for (config.rank = 0; config.rank < config.world_size; ++config.rank) {
    count(order, epoch, config, seen);
  }
  int64_t total = 0;
  for (const auto& [record, times] : seen) total += times;
  config.rank = config.worker = 0;
  const EpochPlan plan(order, epoch, config);
  const int64_t remaining = order->num_positions() - config.start;
  require(total == remaining - plan.dropped_records() + plan.padded_records());
  require(config.drop_last || std::ssize(seen) >= remaining);
  require(!config.drop_last || total % (config.batch_size * config.world_size) == 0);
}

void read(Input& input) {
  try {
    const RecordOrderPtr order = any_order(input);
    const int64_t epoch = input.number();
    const EpochPlan::Config config = any_config(input);
    const EpochPlan plan(order, epoch, config);
    ask(plan, input);
    const bool is_small = order->num_positions() <= kMostListed && config.world_size <= 8 &&
                          config.num_workers <= 6 &&
                          config.batch_size * config.group_size <= kMostListed;
    if (is_small) check_all(order, epoch, config);
    ask(plan.following(), input);
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::config);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
