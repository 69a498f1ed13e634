// Has the records of the coming window brought into the page cache with large reads.
//
// Where an order mixes its records within windows (window_order), neighbours in a file come in
// different batches, but all soon: the kernel is asked for them in runs (POSIX_FADV_WILLNEED), one
// window ahead, a few with every batch. The batches then find their records in the page cache; what
// is not there yet they read themselves. Readers that share a machine share the runs.
//
// Help, not duty: a file that cannot be opened or read is left to the reader, which reports it.
// One thread. Does not allocate in the steady state.
#pragma once

#include <cstdint>
#include <vector>

#include "base/byte_range.h"
#include "order/epoch_plan.h"
#include "reader/record_source.h"

namespace s3io {

class WindowReadahead {
 public:
  struct Config {
    int64_t window_positions = 0;  // 0: no readahead
    int64_t share = 0;             // of `count` readers this one asks for every `count`-th run
    int64_t count = 1;
  };

  // Throws Error(config) for a share that does not exist.
  WindowReadahead(RecordSource& source, const Config& config);

  // Before the plan's `group`-th group is read.
  void advance(const EpochPlan& plan, int64_t group);

 private:
  struct Run {
    int64_t shard;
    ByteRange bytes;
  };

  void begin(const EpochPlan& plan);
  void list_runs(const EpochPlan& plan, int64_t window);
  void ask_until(size_t end);
  void ask(const Run& run);

  RecordSource& source_;
  const Config config_;
  int64_t epoch_ = -1;
  int64_t window_positions_ = 0;  // of that epoch's plan: whole windows, of two steps at least
  int64_t window_ = -1;           // that is being read
  std::vector<int64_t> records_;  // of the window after it
  std::vector<Run> runs_;         // this reader's share of them
  size_t asked_ = 0;              // so many runs were asked for
};

}  // namespace s3io
