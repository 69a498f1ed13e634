// Reads and writes through a few threads that call pread and pwrite: the fallback where io_uring is
// forbidden.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "io/io_engine.h"

namespace s3io {

class ThreadEngine final : public IoEngine {
 public:
  explicit ThreadEngine(const EngineOptions& options);
  // Waits for the requests that are running; those not begun are dropped.
  ~ThreadEngine() override;

  int depth() const override { return depth_; }
  void submit(std::span<IoRequest* const> requests) override;
  int wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) override;
  bool register_buffer(int, std::span<std::byte>) override { return false; }
  std::string_view name() const override { return "threads"; }
  int ready_fd() override;

 private:
  static constexpr int kMaxThreads = 16;

  // A ring of at most depth() requests, allocated once.
  class Queue {
   public:
    explicit Queue(int capacity) : items_(static_cast<size_t>(capacity)) {}
    size_t size() const { return size_; }
    void push(IoRequest* request) { items_[(begin_ + size_++) % items_.size()] = request; }
    IoRequest* pop() {
      IoRequest* request = items_[begin_];
      begin_ = (begin_ + 1) % items_.size();
      --size_;
      return request;
    }

   private:
    std::vector<IoRequest*> items_;
    size_t begin_ = 0;
    size_t size_ = 0;
  };

  void work();
  void signal_ready() const;

  const int depth_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable work_arrived_;
  std::condition_variable work_finished_;
  Queue waiting_;
  Queue finished_;
  int in_flight_ = 0;
  int wanted_ = 0;  // completions for which `wait` sleeps: it is woken once, not once per request
  bool stopping_ = false;
  UniqueFd ready_;  // an eventfd, since somebody asked for it: readable while `finished_` has some
  std::vector<std::thread> threads_;
};

}  // namespace s3io
