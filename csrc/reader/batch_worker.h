// The reading thread of a BatchReader.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "reader/batch_reader.h"

namespace s3io {

// What the consumer and the reading thread share.
class BatchReader::Worker {
 public:
  Worker(std::shared_ptr<RecordSource> source, const EpochPlan& plan,
         std::shared_ptr<BufferPool> pool, const Options& options);

  // The thread.
  void run() noexcept;

  // The consumer.
  bool next(Batch& out, const std::function<void()>& on_wait);
  bool begin_next_epoch(const EpochPlan& plan);
  void stop();
  bool wait_for_exit(milliseconds timeout);
  // Gives back the buffers that nobody will ask for. The thread has exited.
  void drop_batches() {
    const std::lock_guard lock(mutex_);
    entries_.clear();
  }
  std::string engine_name();

 private:
  struct Entry {
    explicit Entry(RecordSource& source) : batch(source) {}
    PendingBatch batch;
    bool is_oversize = false;
    bool completed = false;  // guarded by mutex_; the batch is then the consumer's
  };

  struct Epoch {
    EpochPlan plan;
    int64_t end;  // the number after its last batch
  };

  // The next batch to deliver. None is left once another thread has closed the reader.
  bool is_completed() { return !entries_.empty() && entry(delivered_).completed; }
  Entry& entry(int64_t number) { return entries_[static_cast<size_t>(number) % entries_.size()]; }
  void read_all(RangeReader& reader);
  bool start_batch(RangeReader& reader);
  bool has_next_batch() const { return started_ < plan_begin_ + plan_.num_groups(); }
  PendingBatch& place_next();
  void open_ahead(const PendingBatch& batch);
  void follow_plan();
  bool has_free_entry();
  std::optional<AlignedBuf> try_take(int64_t bytes);
  void wait_for_buffer(uint32_t releases_seen);
  void complete(Entry& entry);
  void leave(std::unique_ptr<RangeReader> reader, std::optional<Error> failure);
  void wait_for_completion(std::unique_lock<std::mutex>& lock,
                           const std::function<void()>& on_wait);
  void check_parent() const;
  void copy_out_if_scarce(Batch& batch);

  const std::shared_ptr<RecordSource> source_;
  const std::shared_ptr<BufferPool> pool_;
  const pid_t parent_ = ::getppid();
  std::deque<Entry> entries_;  // batch i lives in entry i modulo their number

  const int64_t fill_block_bytes_;
  const int processes_;
  WindowReadahead readahead_;  // the thread's own

  // Batches are numbered through all plans.
  std::atomic<int64_t> started_{0};   // written by the thread
  std::atomic<int64_t> oversize_{0};  // batches larger than a buffer that were not delivered yet
  EpochPlan plan_;                    // the thread's own, like what follows
  int64_t plan_begin_ = 0;            // the number of its first batch
  int64_t placed_ = -1;               // the batch that was placed last, and the bytes it needs
  int64_t placed_bytes_ = 0;
  int64_t announced_ = -1;  // the batch whose objects the store was told of
  bool reads_on_;
  int64_t objects_in_flight_ = 0;  // the thread's own: of batches that are being read

  std::mutex mutex_;  // guards what follows
  std::condition_variable to_consumer_;
  std::condition_variable to_thread_;
  int64_t delivered_ = 0;
  std::deque<Epoch> epochs_;      // the one that is being delivered, and what follows it
  std::optional<Error> failure_;  // of the thread itself, not of one batch
  std::string engine_name_;
  bool exited_ = false;

  std::atomic<bool> stopping_{false};
};

}  // namespace s3io
