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
  auto running = std::make_unique<Running>();
  running->worker = std::make_shared<Worker>(std::move(source), plan, std::move(pool), options);
  try {
    running->thread = std::thread([worker = running->worker] { worker->run(); });
  } catch (const std::system_error& error) {
    throw thread_error("the reader's thread", error.code().value());
  }
  running_ = std::move(running);
}

BatchReader::~BatchReader() { close(); }

bool BatchReader::next(Batch& out, const std::function<void()>& on_wait) {
  if (!is_running()) return false;
  if (!running_.is_here()) {
    throw Error(ErrorKind::config,
                "this reader belongs to the parent process; make another one after fork");
  }
  try {
    return running_->worker->next(out, on_wait);
  } catch (...) {
    close();
    throw;
  }
}

bool BatchReader::begin_next_epoch(const EpochPlan& plan) {
  return running_.is_here() && is_running() && running_->worker->begin_next_epoch(plan);
}

void BatchReader::close() {
  if (!running_.is_here()) return;
  const std::lock_guard lock(closing_);
  if (!is_running()) return;
  running_->worker->stop();
  // A thread that hangs in the kernel (opening a file of a dead server) is left behind, with all
  // that it needs.
  if (running_->worker->wait_for_exit(kExitTimeout)) {
    running_->thread.join();
    running_->worker->drop_batches();
  } else {
    running_->thread.detach();
  }
}

std::string BatchReader::engine_name() const {
  // In a forked child its parent's thread may have held the lock.
  return running_.is_here() ? running_->worker->engine_name() : "";
}

}  // namespace s3io
