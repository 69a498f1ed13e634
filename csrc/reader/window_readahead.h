// Has the records of coming windows brought into the page cache with large reads.
//
// Where an order mixes its records within windows (window_order), neighbours in a file come in
// different batches, but all soon: the kernel is asked for them in runs (POSIX_FADV_WILLNEED),
// ahead of the reading, some with every batch. The batches then find their records in the page
// cache; what is not there yet they read themselves. Readers that share a machine share the runs.
//
// A window is asked for bit by bit in the first half of the one before it. Where windows are
// shorter than what lies between two batches of one worker, it is asked for as a whole before any
// other worker can come to it.
//
// Help, not duty: a file that cannot be opened or read is left to the reader, which reports it; and
// no call takes long, so that a reader that begins with a large window reads meanwhile.
// One thread.
#pragma once

#include <cstdint>
#include <vector>

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
  void list_runs(const EpochPlan& plan);
  void add_run(const Extent& run);
  void ask(const Extent& run);

  RecordSource& source_;
  const Config config_;
  int64_t epoch_ = -1;
  int64_t window_ = -1;           // that is being asked for
  std::vector<int64_t> records_;  // some of it
  std::vector<Extent> extents_;   // of its records
  std::vector<Extent> runs_;      // this reader's share of it
  int64_t num_runs_ = 0;          // of all shares
  size_t asked_ = 0;              // so many of `runs_` were asked for
};

}  // namespace s3io
