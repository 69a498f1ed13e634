#include "order/epoch_plan.h"

#include <algorithm>
#include <numeric>

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
  const int64_t full = config.num_records / config.batch_size;
  const bool has_rest = config.num_records % config.batch_size != 0;
  num_batches_ = full + (has_rest && !config.drop_last ? 1 : 0);
  const int64_t left = num_batches_ - config.worker;
  num_local_batches_ = left <= 0 ? 0 : (left - 1) / config.num_workers + 1;
}

void EpochPlan::records(int64_t index, std::vector<int64_t>& out) const {
  const int64_t batch = config_.worker + index * config_.num_workers;
  const int64_t begin = batch * config_.batch_size;
  const int64_t count = std::min(config_.batch_size, config_.num_records - begin);
  out.resize(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), begin);
}

}  // namespace s3io
