// Which records make up which batch of an epoch, and which batches a worker reads. Pure arithmetic.
//
// Batches are defined for the whole epoch: batch k holds positions [k * B, (k + 1) * B). A
// position's record is the position itself: the order is sequential. DataLoader takes from its
// workers in turn, so worker w of W delivers batches w, w + W, w + 2 W, ...
//
// Small batches may be read several at a time: a group is `group_size` successive batches of one
// worker, which share a buffer.
#pragma once

#include <cstdint>
#include <vector>

namespace s3io {

class EpochPlan {
 public:
  struct Config {
    int64_t num_records = 0;
    int64_t batch_size = 1;
    bool drop_last = false;  // leave out a last batch that is not full
    int64_t worker = 0;
    int64_t num_workers = 1;
    int64_t group_size = 1;  // batches that are read together
  };

  // Throws Error(config) for nonsense.
  explicit EpochPlan(const Config& config);

  // Batches in the whole epoch, and those of this worker.
  int64_t num_batches() const { return num_batches_; }
  int64_t num_local_batches() const { return num_local_batches_; }
  // What this worker reads: its batches in groups, and the most records of one.
  int64_t num_groups() const;
  int64_t max_group_records() const;
  // The record numbers of this worker's `group`-th group, in order. Keeps the vector's capacity.
  void records(int64_t group, std::vector<int64_t>& out) const;

 private:
  Config config_;
  int64_t num_batches_;
  int64_t num_local_batches_;
};

}  // namespace s3io
