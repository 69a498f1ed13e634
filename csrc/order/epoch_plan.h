// Which records make up which batch of an epoch, on which rank, read by which worker. Pure
// arithmetic.
//
// An epoch is n positions, each with a record, as a RecordOrder says. Of them [start, n) remain:
// `start` records were consumed before, by all ranks together. They are cut into steps of W * B
// positions, for a world of W ranks with batches of B: rank r has the r-th B of each step. Every
// rank has the same number of steps. DataLoader takes from its workers in turn, so worker w of N
// delivers its rank's steps w, w + N, w + 2 N, ...
//
//     start                                                            n
//     |  rank 0  |  rank 1  |  rank 0  |  rank 1  | 0  | 1  |
//     |       step 0        |       step 1        |  step 2 |   W = 2; the rest is split
//
// The last step, when only m < W * B positions are left for it:
// - drop_last: there is no such step; the m records are dropped.
// - else it is split: contiguous parts in order of the ranks, whose sizes differ by at most one,
//   larger ones first. Where m < W, each rank that would get none has one record as padding.
// - pad_last: every rank gets B; the last W * B - m are padding.
// Padding is records from the beginning of the epoch: position p >= n stands for p mod n.
//
// Small batches may be read several at a time: a group is `group_size` successive batches of one
// worker, which share a buffer.
//
// Immutable; any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "order/record_order.h"

namespace s3io {

class EpochPlan {
 public:
  struct Config {
    int64_t batch_size = 1;
    bool drop_last = false;
    bool pad_last = false;  // not together with drop_last
    int64_t rank = 0;
    int64_t world_size = 1;
    int64_t worker = 0;
    int64_t num_workers = 1;
    int64_t group_size = 1;  // batches that are read together
    int64_t start = 0;       // positions consumed before

    bool operator==(const Config&) const = default;
  };

  // Throws Error(config) for nonsense.
  EpochPlan(RecordOrderPtr order, int64_t epoch, const Config& config);

  // The whole epoch after this one. Throws Error(config) after the last one, 2^63 - 1, and where an
  // endless stream ends.
  EpochPlan following() const;
  // Whether both are the same part of the same epoch of the same order.
  bool operator==(const EpochPlan& other) const {
    return order_ == other.order_ && epoch_ == other.epoch_ && config_ == other.config_;
  }

  // Record numbers are less than this.
  int64_t num_records() const { return order_->num_records(); }
  int64_t epoch() const { return epoch_; }
  int64_t num_positions() const { return num_positions_; }
  // Steps from `start` to the end of the epoch, the same on all ranks; and those of this worker,
  // each of which is one batch.
  int64_t num_steps() const { return num_steps_; }
  int64_t num_local_batches() const { return num_local_batches_; }
  // The step that this worker's `batch`-th batch is its rank's part of.
  int64_t step_of(int64_t batch) const { return config_.worker + batch * config_.num_workers; }

  // What this worker reads: its batches in groups, and the most records of one.
  int64_t num_groups() const;
  int64_t max_group_records() const;
  // The record numbers of this worker's `group`-th group, in order. Keeps the vector's capacity.
  void records(int64_t group, std::vector<int64_t>& out) const;

  // Positions from one group of this worker to its next one; at most 2^62, where there is none.
  int64_t positions_between_groups() const;
  // The position that this worker's `group`-th group begins at.
  int64_t first_position(int64_t group) const {
    return positions(step_of(group * config_.group_size)).first;
  }
  // EpochOrder::records_unordered of the epoch.
  void records_unordered(int64_t first, std::span<int64_t> out) const {
    epoch_order_->records_unordered(first, out);
  }

  // Records left out at the end, and records delivered once more as padding: of all ranks together.
  int64_t dropped_records() const;
  int64_t padded_records() const;
  // Positions of the epoch consumed by all ranks together after so many steps of this plan: what
  // `start` is to be, to go on from there.
  int64_t consumed_after(int64_t steps) const;

 private:
  struct Range {
    int64_t first;
    int64_t count;
  };

  int64_t left_for_last() const;
  Range positions(int64_t step) const;

  RecordOrderPtr order_;
  int64_t epoch_;
  Config config_;
  int64_t num_positions_;
  int64_t step_positions_ = 0;  // W * B
  int64_t num_steps_ = 0;
  int64_t num_local_batches_ = 0;
  std::shared_ptr<const EpochOrder> epoch_order_;
};

}  // namespace s3io
