#include "reader/batch_reader.h"

#include <utility>

#include "base/limits.h"
#include "reader/batch_worker.h"

namespace s3io {
namespace {

constexpr milliseconds kExitTimeout{5000};

}  // namespace

BatchReader::BatchReader(std::shared_ptr<RecordSource> source, const EpochPlan& plan,
                         std::shared_ptr<BufferPool> pool, const Options& options) {
  if (plan.num_records() > source->form().num_records()) {
    throw Error(ErrorKind::config, message("the order has records up to ", plan.num_records(),
                                           ", but the files have ", source->form().num_records()));
  }
  if (pool != nullptr) source->check_buffers(pool->config(), plan.max_group_records());
  worker_ = std::make_shared<Worker>(std::move(source), plan, std::move(pool), options);
  try {
    thread_ = std::thread([worker = worker_] { worker->run(); });
  } catch (const std::system_error& error) {
    throw thread_error("the reader's thread", error.code().value());
  }
}

BatchReader::~BatchReader() { close(); }

bool BatchReader::next(Batch& out, const std::function<void()>& on_wait) {
  if (!thread_.joinable()) return false;
  if (!home_.is_here()) {
    throw Error(ErrorKind::config,
                "this reader belongs to the parent process; make another one after fork");
  }
  try {
    return worker_->next(out, on_wait);
  } catch (...) {
    close();
    throw;
  }
}

bool BatchReader::begin_next_epoch(const EpochPlan& plan) {
  return thread_.joinable() && home_.is_here() && worker_->begin_next_epoch(plan);
}

void BatchReader::close() {
  if (!home_.is_here()) {
    if (!thread_.joinable()) return;
    // Its locks and its ring are the parent's, and so is the thread: what names it here may by now
    // name a thread of this process.
    new std::shared_ptr<Worker>(std::move(worker_));
    new std::thread(std::move(thread_));
    return;
  }
  const std::lock_guard lock(closing_);
  if (!thread_.joinable()) return;
  worker_->stop();
  // A thread that hangs in the kernel (opening a file of a dead server) is left behind, with all
  // that it needs.
  if (worker_->wait_for_exit(kExitTimeout)) {
    thread_.join();
    worker_->drop_batches();
  } else {
    thread_.detach();
  }
}

std::string BatchReader::engine_name() const {
  // In a forked child its parent's thread may have held the lock.
  return worker_ != nullptr && home_.is_here() ? worker_->engine_name() : "";
}

}  // namespace s3io
