#include "base/crew.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace s3io {

Crew::~Crew() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Crew::begin(size_t count, std::function<void(size_t)> work) {
  finish();
  const size_t helpers = std::min(count, static_cast<size_t>(std::max(size_ - 1, 0)));
  start_threads(helpers);
  const std::lock_guard lock(mutex_);
  work_ = std::move(work);
  count_ = count;
  for (size_t waking = 0; waking < std::min(helpers, threads_.size()); ++waking) {
    work_arrived_.notify_one();
  }
}

void Crew::finish() {
  std::unique_lock lock(mutex_);
  take_turns(lock);
  work_finished_.wait(lock, [this] { return finished_ == count_; });
  count_ = begun_ = finished_ = 0;
  work_ = nullptr;
}

void Crew::start_threads(size_t wanted) {
  try {
    while (threads_.size() < wanted) threads_.emplace_back([this] { this->work(); });
  } catch (const std::system_error&) {
    // fewer still do everything
  }
}

void Crew::take_turns(std::unique_lock<std::mutex>& lock) {
  while (begun_ < count_) {
    const size_t turn = begun_++;
    lock.unlock();
    work_(turn);  // it stays until all turns are finished
    lock.lock();
    ++finished_;
  }
}

void Crew::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_arrived_.wait(lock, [this] { return stopping_ || begun_ < count_; });
    if (stopping_) return;
    take_turns(lock);
    if (finished_ == count_) work_finished_.notify_one();
  }
}

}  // namespace s3io
