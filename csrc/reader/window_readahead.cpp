#include "reader/window_readahead.h"

#include <algorithm>

namespace s3io {
namespace {

// So that several readers can share the runs of a block.
constexpr int64_t kMostRunBytes = int64_t{128} << 10;
constexpr int64_t kBytesPerCall = int64_t{16} << 20;
// So that no arithmetic on them overflows.
constexpr int64_t kMostWindow = int64_t{1} << 40;
constexpr int64_t kMostBetween = int64_t{1} << 60;
constexpr int64_t kMostBytes = int64_t{1} << 46;

}  // namespace

WindowReadahead::WindowReadahead(RecordSource& source, const Config& config)
    : source_(source), config_(config) {
  if (config.window_positions < 0 || config.window_positions > kMostWindow || config.count < 1 ||
      config.share < 0 || config.share >= config.count) {
    throw Error(ErrorKind::config,
                message("share ", config.share, " of ", config.count, " of a window of ",
                        config.window_positions, " does not exist"));
  }
}

void WindowReadahead::advance(const EpochPlan& plan, int64_t group) {
  const int64_t length = config_.window_positions;
  if (length == 0) return;
  const int64_t position = plan.first_position(group);
  const int64_t first = position / length;
  if (plan.epoch() != epoch_ || window_ < first) {
    epoch_ = plan.epoch();
    window_ = first;
    list_runs(plan);
  }
  // A group ends before the next one of this worker begins, and so do those that other workers read
  // meanwhile; after that this one is asked again.
  const int64_t between = std::min(plan.positions_between_groups(), kMostBetween);
  const int64_t end = position + length / 2 + std::max(length / 2, 2 * between);
  // Twice of what comes until then: whoever is behind catches up.
  const int64_t stride = source_.form().typical_bytes();
  const int64_t bytes = std::min(between / config_.count, kMostBytes / stride) * stride;
  int64_t budget = std::max(kBytesPerCall, 2 * bytes);
  while (window_ * length < std::min(end, plan.num_positions())) {
    const auto ahead = static_cast<double>(end - window_ * length);
    const double part = std::min(1.0, 2.0 * ahead / static_cast<double>(length));
    const auto wanted = static_cast<size_t>(part * static_cast<double>(runs_.size()));
    for (; asked_ < wanted; ++asked_) {
      if (budget <= 0) return;
      budget -= runs_[asked_].length;
      ask(runs_[asked_]);
    }
    if (asked_ < runs_.size()) return;
    ++window_;
    list_runs(plan);
  }
}

// Records that lie next to each other in an object make a run.
void WindowReadahead::list_runs(const EpochPlan& plan) {
  runs_.clear();
  num_runs_ = 0;
  asked_ = 0;
  const int64_t begin = window_ * config_.window_positions;
  const int64_t count = std::min(config_.window_positions, plan.num_positions() - begin);
  if (count <= 0) return;
  records_.resize(static_cast<size_t>(count));
  plan.records_unordered(begin, records_);
  extents_.clear();
  source_.form().locate(records_, extents_);
  Extent run{.object = -1};
  for (const Extent& next : extents_) {
    // What lies between two of them is read along, where it is no longer than a record.
    const bool follows = next.object == run.object && next.offset >= run.offset &&
                         next.offset - run.offset - run.length <= next.length;
    if (follows && run.length < kMostRunBytes) {
      run.length = std::max(run.length, next.offset + next.length - run.offset);
    } else {
      add_run(run);
      run = next;
    }
  }
  add_run(run);
}

void WindowReadahead::add_run(const Extent& run) {
  if (run.object >= 0 && num_runs_++ % config_.count == config_.share) runs_.push_back(run);
}

void WindowReadahead::ask(const Extent& run) {
  try {
    source_.counters().reads.filled_bytes.fetch_add(
        source_.open(run.object)->prefetch(run.offset, run.length), std::memory_order_relaxed);
  } catch (const Error&) {  // the reader meets it again, and reports it
  }
}

}  // namespace s3io
