#include "io/thread_engine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/limits.h"

namespace s3io {
namespace {

int64_t perform(const IoRequest& request) {
  const ssize_t count = request.operation == IoOperation::read
                            ? ::pread(request.fd, request.data, request.length, request.offset)
                            : ::pwrite(request.fd, request.data, request.length, request.offset);
  return count >= 0 ? count : -errno;
}

}  // namespace

ThreadEngine::ThreadEngine(const EngineOptions& options)
    : depth_(options.depth), waiting_(options.depth), finished_(options.depth) {
  const int count = std::min(depth_, kMaxThreads);
  threads_.reserve(static_cast<size_t>(count));
  for (int index = 0; index < count; ++index) {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      if (!threads_.empty()) break;  // fewer threads than wanted still do everything
      throw thread_error("a thread to read or write with", error.code().value());
    }
  }
}

ThreadEngine::~ThreadEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadEngine::submit(std::span<IoRequest* const> requests) {
  {
    const std::lock_guard lock(mutex_);
    for (IoRequest* request : requests) waiting_.push(request);
    in_flight_ += static_cast<int>(requests.size());
  }
  if (requests.size() == 1) {
    work_arrived_.notify_one();
  } else {
    work_arrived_.notify_all();
  }
}

int ThreadEngine::wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) {
  std::unique_lock lock(mutex_);
  // The system clock: ThreadSanitizer does not know waits on the monotonic one, and callers wait in
  // slices.
  wanted_ = std::min({min_count, in_flight_, static_cast<int>(done.size())});
  work_finished_.wait_until(lock, std::chrono::system_clock::now() + timeout,
                            [this] { return static_cast<int>(finished_.size()) >= wanted_; });
  const size_t count = std::min(finished_.size(), done.size());
  for (size_t index = 0; index < count; ++index) done[index] = finished_.pop();
  if (ready_.valid() && count > 0 && finished_.size() == 0) {
    uint64_t unused = 0;
    static_cast<void>(::read(ready_.get(), &unused, sizeof(unused)));
  }
  in_flight_ -= static_cast<int>(count);
  return static_cast<int>(count);
}

int ThreadEngine::ready_fd() {
  const std::lock_guard lock(mutex_);
  if (!ready_.valid()) {
    ready_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (ready_.valid() && finished_.size() > 0) signal_ready();
  }
  return ready_.get();
}

void ThreadEngine::signal_ready() const {
  const uint64_t one = 1;
  static_cast<void>(::write(ready_.get(), &one, sizeof(one)));  // it was 0: it cannot overflow
}

void ThreadEngine::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_arrived_.wait(lock, [this] { return stopping_ || waiting_.size() > 0; });
    if (stopping_) return;
    IoRequest* request = waiting_.pop();
    lock.unlock();
    request->result = perform(*request);
    lock.lock();
    finished_.push(request);
    if (ready_.valid() && finished_.size() == 1) signal_ready();
    if (static_cast<int>(finished_.size()) >= wanted_) work_finished_.notify_one();
  }
}

}  // namespace s3io
