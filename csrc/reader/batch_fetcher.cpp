#include "reader/batch_fetcher.h"

#include <utility>

#include "store/waiting.h"

namespace s3io {
BatchFetcher::BatchFetcher(std::shared_ptr<RecordSource> source, std::shared_ptr<BufferPool> pool,
                           int processes)
    : source_(std::move(source)), pool_(std::move(pool)), processes_(processes) {
  if (pool_ != nullptr) source_->check_alignment(pool_->config().alignment);
}

void BatchFetcher::fetch(std::vector<int64_t> records, Batch& out,
                         const std::function<void()>& on_wait) {
  if (!reader_.is_here()) {
    throw Error(ErrorKind::config,
                "this fetcher belongs to the parent process; make another one after fork");
  }
  for (const int64_t record : records) {
    if (record < 0 || record >= source_->form().num_records()) {
      throw Error(ErrorKind::range, message("record ", record, " does not exist: the data set has ",
                                            source_->form().num_records(), ", from 0 on"));
    }
  }
  auto batch = std::make_unique<PendingBatch>(*source_);
  batch->records() = std::move(records);
  const int64_t bytes = batch->place();
  // Never waits for a buffer: a running reader may hold all of them.
  std::optional<AlignedBuf> buffer;
  if (pool_ != nullptr && pool_->can_lend()) buffer = pool_->try_take(bytes);
  if (!buffer) {
    const bool is_for_others = pool_ != nullptr && pool_->is_shared();
    buffer = is_for_others ? AlignedBuf::allocate_shared(bytes, source_->alignment())
                           : AlignedBuf::allocate(bytes, source_->alignment());
  }
  const std::lock_guard lock(mutex_);
  if (reader_ == nullptr) {
    reader_ = source_->make_reader({.any_thread = true, .sharing_processes = processes_});
  }
  try {
    if (batch->start(std::move(*buffer), -1, nullptr, *reader_)) read(*batch, on_wait);
  } catch (...) {
    give_up(std::move(batch));
    throw;
  }
  batch->finish();
  batch->deliver(out);
}

void BatchFetcher::read(PendingBatch& batch, const std::function<void()>& on_wait) {
  const double timeout_s = source_->options().read_timeout_s;
  const Clock::time_point deadline = deadline_after(timeout_s);
  const auto late = [&] {
    return message("the records did not arrive within ", timeout_s,
                   " s: the device does not answer, or is slower than that; raise "
                   "read_timeout_s");
  };
  // For the batch as a whole: however slowly the device answers, the wait has an end.
  const auto on_wait_for_all = [&] {
    if (on_wait) on_wait();
    if (Clock::now() >= deadline) throw Error(ErrorKind::read_timeout, late());
  };
  std::vector<RangeRead*> finished;
  run_until(
      *reader_, finished, timeout_s, on_wait_for_all,
      [&](const RangeRead& read) { return batch.take_back(read, *reader_); }, late);
}

void BatchFetcher::give_up(std::unique_ptr<PendingBatch> batch) {
  if (reader_->abandon(kAbandonTimeout)) return;
  // The kernel, or a thread, may yet write into this buffer and these requests: never reused.
  batch->quarantine();
  never_destroy(std::move(batch));
  never_destroy(reader_.take());
}

}  // namespace s3io
