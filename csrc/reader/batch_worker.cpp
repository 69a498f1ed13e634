#include "reader/batch_worker.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace s3io {
namespace {

constexpr int64_t kBatchesWithoutPool = 4;  // read ahead where no pool bounds it

}  // namespace

BatchReader::Worker::Worker(std::shared_ptr<RecordSource> source, const EpochPlan& plan,
                            std::shared_ptr<BufferPool> pool, const Options& options)
    : source_(std::move(source)),
      pool_(std::move(pool)),
      fill_block_bytes_(options.fill_block_bytes),
      processes_(options.processes),
      readahead_(*source_, options.windows),
      plan_(plan),
      reads_on_(options.reads_on),
      epochs_{{plan, plan.num_groups()}} {
  const int64_t buffers = pool_ != nullptr ? pool_->config().capacity : kBatchesWithoutPool;
  const int64_t wanted = reads_on_ ? buffers : plan_.num_groups();
  const int64_t count = std::clamp<int64_t>(wanted, 1, buffers);
  for (int64_t index = 0; index < count; ++index) entries_.emplace_back(*source_);
}

void BatchReader::Worker::run() noexcept {
  std::unique_ptr<RangeReader> reader;
  std::optional<Error> failure;
  try {
    reader = source_->make_reader(
        {.sharing_processes = processes_, .fill_block_bytes = fill_block_bytes_});
    {
      const std::lock_guard lock(mutex_);
      engine_name_ = reader->name();
    }
    read_all(*reader);
  } catch (const Error& error) {
    failure = error;
  } catch (const std::exception& error) {
    failure = Error(ErrorKind::out_of_memory, message("the reader failed: ", error.what()));
  }
  leave(std::move(reader), std::move(failure));
}

void BatchReader::Worker::leave(std::unique_ptr<RangeReader> reader, std::optional<Error> failure) {
  if (reader != nullptr && !reader->abandon(kAbandonTimeout)) {
    // The kernel, or a thread, may yet write into these buffers and requests: they are never
    // reused.
    for (Entry& entry : entries_) {
      if (entry.batch.has_reads_in_flight()) entry.batch.quarantine();
    }
    static_cast<void>(reader.release());
  }
  reader.reset();
  const std::lock_guard lock(mutex_);
  failure_ = std::move(failure);
  exited_ = true;
  to_consumer_.notify_all();
}

void BatchReader::Worker::read_all(RangeReader& reader) {
  std::vector<RangeRead*> finished;
  while (!stopping_) {
    const uint32_t releases_seen = pool_ != nullptr ? pool_->release_count() : 0;
    // A backlog keeps the engine busy: another buffer would only be memory that is used, and
    // perhaps prepared for the first time, before the batches that come earlier.
    const bool started = !reader.has_backlog() && start_batch(reader);
    if (!reader.idle()) {
      finished.clear();
      // One batch at a time: what comes out of the page cache is there at once, and goes to the
      // consumer before the next buffer is taken. Few buffers then circulate, and stay in the
      // processor's caches.
      reader.run(finished, started ? milliseconds(0) : kWaitSlice);
      for (RangeRead* read : finished) {
        auto* owner = static_cast<Entry*>(read->owner);
        const bool is_read = owner->batch.take_back(*read, reader);
        open_ahead(owner->batch);
        if (is_read) complete(*owner);
      }
    } else if (!has_next_batch()) {
      return;
    } else if (!started) {
      wait_for_buffer(releases_seen);
    }
  }
}

// Goes on to the next epoch, if there is one, before the last batch of this one is delivered: the
// consumer then knows whether there is.
void BatchReader::Worker::follow_plan() {
  if (!reads_on_) return;
  try {
    plan_ = plan_.following();
  } catch (const Error&) {  // an endless stream ends after all: whoever begins that epoch is told
    reads_on_ = false;
    return;
  }
  plan_begin_ = started_;
  const std::lock_guard lock(mutex_);
  epochs_.push_back({plan_, plan_begin_ + plan_.num_groups()});
}

// Starts the next batch. False when there is none, or no buffer for it.
bool BatchReader::Worker::start_batch(RangeReader& reader) {
  if (!has_next_batch() || !has_free_entry()) return false;
  if (objects_in_flight_ >= source_->max_open_objects()) return false;  // a completion comes first
  Entry& next_entry = entry(started_);
  PendingBatch& batch = place_next();
  const bool is_oversize = pool_ != nullptr && placed_bytes_ > pool_->config().buffer_size;
  if (is_oversize && oversize_ > 0) return false;  // one at a time: memory is bounded
  std::optional<AlignedBuf> buffer = try_take(placed_bytes_);
  if (!buffer) return false;
  next_entry.is_oversize = is_oversize;
  oversize_ += is_oversize ? 1 : 0;
  readahead_.advance(plan_, started_ - plan_begin_);
  const auto slot = static_cast<int>(buffer->slot());
  const bool registered = slot >= 0 && reader.register_buffer(slot, buffer->bytes());
  if (++started_ == plan_begin_ + plan_.num_groups()) follow_plan();
  const bool reading = batch.start(std::move(*buffer), registered ? slot : -1, &next_entry, reader);
  objects_in_flight_ += batch.num_objects();
  open_ahead(batch);
  if (!reading) complete(next_entry);
  return true;
}

// While a batch is read the objects of the next one are opened, if that takes time.
void BatchReader::Worker::open_ahead(const PendingBatch& batch) {
  if (batch.late_objects() == 0 || announced_ == started_ || !batch.has_opened_all()) return;
  if (!has_next_batch() || !has_free_entry()) return;
  announced_ = started_;
  place_next().open_soon();
}

// Unless it was placed before, and waits for a buffer since then.
PendingBatch& BatchReader::Worker::place_next() {
  PendingBatch& batch = entry(started_).batch;
  if (std::exchange(placed_, started_) != started_) {
    plan_.records(started_ - plan_begin_, batch.records());
    placed_bytes_ = batch.place();
  }
  return batch;
}

bool BatchReader::Worker::has_free_entry() {
  const std::lock_guard lock(mutex_);
  return started_ - delivered_ < static_cast<int64_t>(entries_.size());
}

std::optional<AlignedBuf> BatchReader::Worker::try_take(int64_t bytes) {
  if (pool_ != nullptr && bytes <= pool_->config().buffer_size) {
    return pool_->try_take(pool_->config().buffer_size);  // all of it: registered
  }
  const int64_t alignment = std::max(source_->alignment(), kFieldAlignment);
  const bool is_for_others = pool_ != nullptr && pool_->is_shared();
  return is_for_others ? AlignedBuf::allocate_shared(bytes, alignment)
                       : AlignedBuf::allocate(bytes, alignment);
}

void BatchReader::Worker::wait_for_buffer(uint32_t releases_seen) {
  const Clock::time_point start = Clock::now();
  if (pool_ != nullptr) {
    // An entry is free whenever a buffer is: there are as many entries as buffers.
    pool_->wait_for_release(releases_seen, kWaitSlice);
  } else {
    std::unique_lock lock(mutex_);
    const int64_t seen = delivered_;
    if (started_ - seen >= static_cast<int64_t>(entries_.size()) && !stopping_) {
      to_thread_.wait_until(lock, std::chrono::system_clock::now() + kWaitSlice);
    }
  }
  source_->counters().reader_wait_ns.fetch_add(nanoseconds_since(start));
}

void BatchReader::Worker::complete(Entry& finished) {
  objects_in_flight_ -= finished.batch.num_objects();
  finished.batch.finish();
  {
    const std::lock_guard lock(mutex_);
    finished.completed = true;
  }
  to_consumer_.notify_one();  // without the lock, which the consumer takes as it wakes
}

bool BatchReader::Worker::next(Batch& out, const std::function<void()>& on_wait) {
  out.buffer = AlignedBuf();  // the consumer is done with what it did not detach
  {
    std::unique_lock lock(mutex_);
    if (delivered_ == epochs_.front().end) return false;
    wait_for_completion(lock, on_wait);
    Entry& head = entry(delivered_);
    head.completed = false;
    if (std::exchange(head.is_oversize, false)) {
      --oversize_;
      source_->counters().oversize_batches.fetch_add(1);
      pool_->interrupt();  // the thread may wait for this one to go
    }
    ++delivered_;
    head.batch.deliver(out);
  }
  if (pool_ == nullptr) to_thread_.notify_one();
  copy_out_if_scarce(out);
  return true;
}

void BatchReader::Worker::wait_for_completion(std::unique_lock<std::mutex>& lock,
                                              const std::function<void()>& on_wait) {
  const Clock::time_point start = Clock::now();
  const double timeout_s = source_->options().read_timeout_s;
  const bool shared = pool_ != nullptr && pool_->is_shared();
  Clock::time_point deadline = deadline_after(timeout_s);
  while (!is_completed()) {
    if (failure_) throw Error(*failure_);
    if (exited_) throw Error(ErrorKind::config, "the reader is closed");
    if (Clock::now() >= deadline) {
      throw Error(ErrorKind::read_timeout,
                  message("batch ", delivered_, " did not arrive within ", timeout_s,
                          " s: the device does not answer, or is slower than that; raise "
                          "read_timeout_s (now ",
                          timeout_s, ")"));
    }
    to_consumer_.wait_until(lock, std::chrono::system_clock::now() + kWaitSlice);
    if (shared) {
      check_parent();
      // No buffer yet: the training loop has them all, and may take its time with a long step.
      if (started_ <= delivered_) deadline = deadline_after(timeout_s);
    }
    if (on_wait && !is_completed()) {
      lock.unlock();
      on_wait();
      lock.lock();
    }
  }
  source_->counters().consumer_wait_ns.fetch_add(nanoseconds_since(start));
}

// A worker waits for buffers that only its parent can let go of.
void BatchReader::Worker::check_parent() const {
  if (::getppid() == parent_) return;
  throw Error(ErrorKind::engine, "the process that this worker reads for is gone");
}

void BatchReader::Worker::copy_out_if_scarce(Batch& batch) {
  if (pool_ == nullptr || batch.buffer.pool() == nullptr) return;
  if (pool_->can_lend()) return;
  ReaderCounters& counters = source_->counters();
  counters.copied_bytes.fetch_add(batch.copy_out(pool_->is_shared()));
  counters.spilled_batches.fetch_add(1);
}

bool BatchReader::Worker::begin_next_epoch(const EpochPlan& plan) {
  const std::lock_guard lock(mutex_);
  if (exited_ || delivered_ < epochs_.front().end) return false;
  if (epochs_.size() < 2 || epochs_[1].plan != plan) return false;
  epochs_.pop_front();
  return true;
}

void BatchReader::Worker::stop() {
  stopping_ = true;
  {
    const std::lock_guard lock(mutex_);  // no thread is between looking at stopping_ and sleeping
  }
  to_thread_.notify_all();
  if (pool_ != nullptr) pool_->interrupt();
}

bool BatchReader::Worker::wait_for_exit(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return to_consumer_.wait_until(lock, std::chrono::system_clock::now() + timeout,
                                 [this] { return exited_; });
}

std::string BatchReader::Worker::engine_name() {
  const std::lock_guard lock(mutex_);
  return engine_name_;
}

}  // namespace s3io
