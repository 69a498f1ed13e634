#include "order/epoch_plan.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

constexpr int64_t kMostGroupRecords = int64_t{1} << 46;

int64_t divided_up(int64_t value, int64_t divisor) {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}

void check(const EpochPlan::Config& config, int64_t num_positions) {
  if (config.batch_size < 1) {
    throw Error(ErrorKind::config,
                message("batch_size must be at least 1, not ", config.batch_size));
  }
  if (config.num_workers < 1 || config.worker < 0 || config.worker >= config.num_workers) {
    throw Error(ErrorKind::config,
                message("worker ", config.worker, " of ", config.num_workers, " does not exist"));
  }
  if (config.world_size < 1 || config.rank < 0 || config.rank >= config.world_size) {
    throw Error(ErrorKind::config,
                message("rank ", config.rank, " of world_size ", config.world_size,
                        " does not exist: ranks are 0 to world_size - 1"));
  }
  if (config.group_size < 1 || config.batch_size > kMostGroupRecords / config.group_size) {
    throw Error(ErrorKind::config, message("batch_size ", config.batch_size, " is too large"));
  }
  if (config.world_size > RecordOrder::kMostPositions / config.batch_size) {
    throw Error(ErrorKind::config, message("batch_size ", config.batch_size, " times world_size ",
                                           config.world_size, " is more than 2^62"));
  }
  if (config.drop_last && config.pad_last) {
    throw Error(ErrorKind::config,
                "drop_last and pad_last exclude each other: one drops the last records of an "
                "epoch, the other fills up their batch");
  }
  if (config.start < 0 || config.start > num_positions) {
    throw Error(ErrorKind::config, message("start ", config.start, " is not within an epoch of ",
                                           num_positions, " records"));
  }
}

}  // namespace

EpochPlan::EpochPlan(RecordOrderPtr order, int64_t epoch, const Config& config)
    : order_(std::move(order)),
      epoch_(epoch),
      config_(config),
      num_positions_(order_ == nullptr ? 0 : order_->num_positions()) {
  if (order_ == nullptr) throw Error(ErrorKind::config, "a plan needs an order");
  check(config, num_positions_);
  epoch_order_ = order_->epoch(epoch);
  step_positions_ = config.batch_size * config.world_size;
  const int64_t remaining = num_positions_ - config.start;
  num_steps_ =
      config.drop_last ? remaining / step_positions_ : divided_up(remaining, step_positions_);
  num_local_batches_ =
      divided_up(std::max<int64_t>(num_steps_ - config.worker, 0), config.num_workers);
}

EpochPlan EpochPlan::following() const {
  if (epoch_ == std::numeric_limits<int64_t>::max()) {
    throw Error(ErrorKind::config, message("epoch ", epoch_, " is the last one there is"));
  }
  Config config = config_;
  config.start = 0;
  return EpochPlan(order_, epoch_ + 1, config);
}

int64_t EpochPlan::positions_between_groups() const {
  int64_t product = 0;
  const bool overflows = __builtin_mul_overflow(step_positions_, config_.num_workers, &product) ||
                         __builtin_mul_overflow(product, config_.group_size, &product);
  return overflows ? RecordOrder::kMostPositions : std::min(product, RecordOrder::kMostPositions);
}

int64_t EpochPlan::num_groups() const { return divided_up(num_local_batches_, config_.group_size); }

int64_t EpochPlan::max_group_records() const {
  const int64_t full = config_.batch_size * config_.group_size;
  if (config_.pad_last) return num_positions_ == 0 ? 0 : full;
  return std::min(full, num_positions_);
}

// Positions left for the last step when it is not a whole one, else 0.
int64_t EpochPlan::left_for_last() const {
  return (num_positions_ - config_.start) % step_positions_;
}

int64_t EpochPlan::dropped_records() const { return config_.drop_last ? left_for_last() : 0; }

int64_t EpochPlan::padded_records() const {
  const int64_t left = left_for_last();
  if (left == 0 || config_.drop_last) return 0;
  if (config_.pad_last) return step_positions_ - left;
  return std::max<int64_t>(config_.world_size - left, 0);
}

int64_t EpochPlan::consumed_after(int64_t steps) const {
  if (steps < 0) throw Error(ErrorKind::range, message("there are no ", steps, " steps"));
  const int64_t end = config_.start + std::min(steps, num_steps_) * step_positions_;
  return std::min(end, num_positions_);
}

// This rank's part of a step; beyond the end of the epoch where it is padding.
EpochPlan::Range EpochPlan::positions(int64_t step) const {
  const int64_t begin = config_.start + step * step_positions_;
  const int64_t left = num_positions_ - begin;
  if (left >= step_positions_ || config_.pad_last) {
    return {begin + config_.rank * config_.batch_size, config_.batch_size};
  }
  const int64_t share = left / config_.world_size;
  const int64_t larger = left % config_.world_size;  // so many ranks have one more
  const int64_t count = share + (config_.rank < larger ? 1 : 0);
  const int64_t first = begin + config_.rank * share + std::min(config_.rank, larger);
  // A rank without a record: left < world_size, so share is 0 and `first` would be the end for all.
  if (count == 0) return {begin + config_.rank, 1};
  return {first, count};
}

void EpochPlan::records(int64_t group, std::vector<int64_t>& out) const {
  if (group < 0 || group >= num_groups()) {
    throw Error(ErrorKind::range, message("there is no group ", group, " of ", num_groups()));
  }
  const int64_t first = group * config_.group_size;
  const int64_t last = first + std::min(config_.group_size, num_local_batches_ - first);
  out.clear();
  for (int64_t batch = first; batch < last; ++batch) {
    auto [position, count] = positions(step_of(batch));
    while (count > 0) {
      const int64_t within = position % num_positions_;
      const int64_t part = std::min(count, num_positions_ - within);
      const size_t begin = out.size();
      out.resize(begin + static_cast<size_t>(part));
      epoch_order_->records(within, std::span(out).subspan(begin));
      position += part;
      count -= part;
    }
  }
}

}  // namespace s3io
