#include "store/write_engine.h"

#include <utility>

#include "store/temporary_file.h"

namespace s3io {
namespace {

constexpr size_t kMaxIdleWrites = 4;
constexpr size_t kMaxTidied = 4096;  // then it begins anew

}  // namespace

std::unique_ptr<WriteQueue> WriteEngine::borrow() {
  // Faults count per writer, from its first write.
  if (options_.faults == nullptr) {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<WriteQueue> queue = std::move(idle_.back());
      idle_.pop_back();
      return queue;
    }
  }
  auto engine = make_engine({.kind = options_.engine, .depth = kDepth, .any_thread = true});
  return std::make_unique<WriteQueue>(with_faults(std::move(engine), options_.faults.get()),
                                      &counters_);
}

void WriteEngine::give_back(std::unique_ptr<WriteQueue> queue) {
  queue->forget_failure();
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdleWrites) idle_.push_back(std::move(queue));
}

void WriteEngine::tidy(const std::string& folder, const std::function<void()>& on_progress) {
  {
    const std::lock_guard lock(mutex_);
    if (tidied_.size() >= kMaxTidied) tidied_.clear();
    if (!tidied_.insert(folder).second) return;
  }
  remove_abandoned(folder, on_progress);
}

}  // namespace s3io
