#include "reader/window_readahead.h"

#include <fcntl.h>

#include <algorithm>

#include "io/page_cache.h"

namespace s3io {
namespace {

constexpr int64_t kMostRunBytes = int64_t{1} << 20;

}  // namespace

WindowReadahead::WindowReadahead(RecordSource& source, const Config& config)
    : source_(source), config_(config) {
  if (config.window_positions < 0 || config.count < 1 || config.share < 0 ||
      config.share >= config.count) {
    throw Error(ErrorKind::config,
                message("share ", config.share, " of ", config.count, " of a window of ",
                        config.window_positions, " does not exist"));
  }
}

void WindowReadahead::advance(const EpochPlan& plan, int64_t group) {
  if (config_.window_positions == 0) return;
  if (plan.epoch() != epoch_) begin(plan);
  const int64_t position = plan.first_position(group);
  const int64_t window = position / window_positions_;
  if (window != window_) {
    if (window != window_ + 1 || window_ < 0) list_runs(plan, window);  // nobody asked for it yet
    ask_until(runs_.size());
    window_ = window;
    list_runs(plan, window + 1);
  }
  // All of the next window by the middle of this one.
  const int64_t done = position - window * window_positions_;
  const double part = 2.0 * static_cast<double>(done) / static_cast<double>(window_positions_);
  ask_until(static_cast<size_t>(std::min(part, 1.0) * static_cast<double>(runs_.size())));
}

void WindowReadahead::begin(const EpochPlan& plan) {
  epoch_ = plan.epoch();
  window_ = -1;
  const int64_t least = std::min(2 * plan.step_positions(), plan.num_positions());
  const int64_t windows = (std::max<int64_t>(least, 1) - 1) / config_.window_positions + 1;
  window_positions_ = windows * config_.window_positions;
}

// Records that lie next to each other in a file make a run.
void WindowReadahead::list_runs(const EpochPlan& plan, int64_t window) {
  runs_.clear();
  asked_ = 0;
  const int64_t begin = window * window_positions_;
  const int64_t count = std::min(window_positions_, plan.num_positions() - begin);
  if (count <= 0) return;
  records_.resize(static_cast<size_t>(count));
  plan.records_at(begin, records_);
  std::sort(records_.begin(), records_.end());
  const int64_t stride = source_.layout().record_stride;
  int64_t shard = 0;
  Run run{.shard = -1, .bytes = {}};
  int64_t number = 0;
  const auto end_run = [&] {
    if (run.shard >= 0 && number++ % config_.count == config_.share) runs_.push_back(run);
  };
  for (const int64_t record : records_) {
    const ShardTable::Location location = source_.shards().locate(record, shard);
    shard = location.shard;
    const int64_t offset = source_.shards().shards()[static_cast<size_t>(shard)].header_bytes +
                           location.index * stride;
    if (shard == run.shard && offset == run.bytes.end() && run.bytes.length < kMostRunBytes) {
      run.bytes.length += stride;
      continue;
    }
    end_run();
    run = {.shard = shard, .bytes = {.offset = offset, .length = stride}};
  }
  end_run();
}

void WindowReadahead::ask_until(size_t end) {
  for (; asked_ < end; ++asked_) ask(runs_[asked_]);
}

void WindowReadahead::ask(const Run& run) {
  try {
    const std::shared_ptr<DirectFile> file = source_.open(run.shard);
    if (!file->can_read_buffered()) return;
    const auto [offset, length] = run.bytes;
    const int64_t cached = cached_bytes(file->buffered_fd(), offset, length);
    if (cached >= length) return;
    if (::posix_fadvise(file->buffered_fd(), offset, length, POSIX_FADV_WILLNEED) != 0) return;
    source_.counters().filled_bytes.fetch_add(length - std::max<int64_t>(cached, 0),
                                              std::memory_order_relaxed);
  } catch (const Error&) {  // the reader meets it again, and reports it
  }
}

}  // namespace s3io
