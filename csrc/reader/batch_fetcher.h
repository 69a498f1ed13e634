// Reads any records by number into one batch, in the calling thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/fork_owned.h"
#include "memory/buffer_pool.h"
#include "reader/batch.h"
#include "reader/record_source.h"

namespace s3io {

class BatchFetcher {
 public:
  // `processes` share the processors. `pool` may be null: then every batch gets an allocation of
  // its own. Throws Error(config) when the pool's alignment is too low for direct reads of these
  // files.
  BatchFetcher(std::shared_ptr<RecordSource> source, std::shared_ptr<BufferPool> pool,
               int processes = 1);

  // Throws Error(range) for a record number that does not exist, and what went wrong with the
  // reads. Thread-safe: one fetch at a time. Belongs to the process that made it: Error(config) in
  // a forked child, whose ring is its parent's.
  void fetch(std::vector<int64_t> records, Batch& out, const std::function<void()>& on_wait = {});

 private:
  void read(PendingBatch& batch, const std::function<void()>& on_wait);
  void give_up(std::unique_ptr<PendingBatch> batch);

  const std::shared_ptr<RecordSource> source_;
  const std::shared_ptr<BufferPool> pool_;
  const int processes_;
  std::mutex mutex_;               // guards what follows
  ForkOwned<RangeReader> reader_;  // made with the first fetch
};

}  // namespace s3io
