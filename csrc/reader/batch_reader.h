// Delivers the batches of a plan in order, read ahead as far as the buffers allow.
//
// A thread of its own owns the ring: it takes a buffer, pushes the reads of the next batch, and
// finishes batches as their reads complete. The consumer takes finished batches in order; while it
// holds them their buffers are not reused, which is the backpressure.
//
// Note: several epochs. With `reads_on` the thread goes on to the next epoch while the consumer is
// still busy with the last batches of this one: the first batches of the next epoch are then there
// when it begins. For the consumer each epoch ends by itself (`next` returns false), and
// `begin_next_epoch` goes on.
//
// Note: never stuck. When tensors hold so many buffers that fewer than a reserve would be left for
// reading, `next` copies the batch out of the pool and frees its buffer: slower, counted, but a
// program that keeps every batch still runs.
//
// Note: a forked child has no reading thread. Its copy of a BatchReader delivers nothing
// (Error(config)) and does nothing when it dies.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "base/fork_owned.h"
#include "memory/buffer_pool.h"
#include "order/epoch_plan.h"
#include "reader/batch.h"
#include "reader/record_source.h"
#include "reader/window_readahead.h"

namespace s3io {

class BatchReader {
 public:
  struct Options {
    bool reads_on = false;
    int64_t fill_block_bytes = 0;  // of ReaderOptions
    WindowReadahead::Config windows = {};
    int processes = 1;  // that share the processors
  };

  // Without a pool every batch gets an allocation of its own. The thread begins to read at once.
  // Throws Error(config) when a buffer of the pool cannot hold a group of the plan. What the plan
  // calls a group is a batch here.
  BatchReader(std::shared_ptr<RecordSource> source, const EpochPlan& plan,
              std::shared_ptr<BufferPool> pool, const Options& options);
  BatchReader(std::shared_ptr<RecordSource> source, const EpochPlan& plan,
              std::shared_ptr<BufferPool> pool)
      : BatchReader(std::move(source), plan, std::move(pool), Options{}) {}
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;
  ~BatchReader();

  // Waits for the next batch; false at the end of the plan. Throws what went wrong with it; the
  // reader is then closed. `on_wait` is called every few milliseconds while waiting and may throw.
  // One consumer thread.
  bool next(Batch& out, const std::function<void()>& on_wait = {});
  // After `next` returned false: goes on with `plan`, if that is what the thread reads. False
  // when it is not, or does not read on. The consumer thread.
  bool begin_next_epoch(const EpochPlan& plan);
  // Stops reading; buffers that were not delivered go back to the pool. Bounded: a read that does
  // not come back within a second loses its buffer for good, counted. Idempotent.
  void close();

  // "uring" or "threads"; empty until the thread has made it.
  std::string engine_name() const;

 private:
  class Worker;
  struct Running {
    std::shared_ptr<Worker> worker;  // shared with its thread, which may outlive the reader
    std::thread thread;
  };

  bool is_running() const { return running_->thread.joinable(); }

  ForkOwned<Running> running_;
  std::mutex closing_;  // a consumer that fails closes the reader, and so may others
};

}  // namespace s3io
