#include "order/epoch_plan.h"

#include <algorithm>

#include "base/error.h"

namespace s3io {

EpochPlan::EpochPlan(const Config& config) : config_(config) {
  if (config.num_records < 0 || config.batch_size < 1) {
    throw Error(ErrorKind::config,
                message("batch_size must be at least 1, not ", config.batch_size));
  }
  if (config.num_workers < 1 || config.worker < 0 || config.worker >= config.num_workers) {
    throw Error(ErrorKind::config,
                message("worker ", config.worker, " of ", config.num_workers, " does not exist"));
  }
  constexpr int64_t kMostRecords = int64_t{1} << 46;
  if (config.group_size < 1 || config.batch_size > kMostRecords / config.group_size) {
    throw Error(ErrorKind::config, message("batch_size ", config.batch_size, " is too large"));
  }
  const int64_t full = config.num_records / config.batch_size;
  const bool has_rest = config.num_records % config.batch_size != 0;
  num_batches_ = full + (has_rest && !config.drop_last ? 1 : 0);
  const int64_t left = num_batches_ - config.worker;
  num_local_batches_ = left <= 0 ? 0 : (left - 1) / config.num_workers + 1;
}

int64_t EpochPlan::num_groups() const {
  return (num_local_batches_ + config_.group_size - 1) / config_.group_size;
}

int64_t EpochPlan::max_group_records() const {
  return std::min(config_.batch_size * config_.group_size, config_.num_records);
}

void EpochPlan::records(int64_t group, std::vector<int64_t>& out) const {
  const int64_t first = group * config_.group_size;
  const int64_t last = std::min(first + config_.group_size, num_local_batches_);
  out.clear();
  for (int64_t local = first; local < last; ++local) {
    const int64_t begin = (config_.worker + local * config_.num_workers) * config_.batch_size;
    const int64_t end = std::min(begin + config_.batch_size, config_.num_records);
    for (int64_t record = begin; record < end; ++record) out.push_back(record);
  }
}

}  // namespace s3io
