// Threads that share work with the one that has it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace s3io {

// One thread at a time. It starts its threads with the first work that they can share, and keeps
// them. Belongs to the process that made it.
class Crew {
 public:
  // At most `size` threads, the calling one among them; fewer where no more can be started.
  explicit Crew(int size) : size_(size) {}
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  ~Crew();

  // Calls work(0) to work(count - 1), each once and by any of the threads; returns when all of them
  // have returned. `work` does not throw.
  void run(size_t count, const std::function<void(size_t)>& work) {
    begin(count, [&work](size_t turn) { work(turn); });
    finish();
  }
  // The same, but returns at once; `finish`, and the next work, wait for it.
  void begin(size_t count, std::function<void(size_t)> work);
  // Shares what work is left, and waits for the rest.
  void finish();

 private:
  void start_threads(size_t wanted);
  void take_turns(std::unique_lock<std::mutex>& lock);
  void work();

  const int size_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable work_arrived_;
  std::condition_variable work_finished_;
  std::function<void(size_t)> work_;
  size_t count_ = 0;
  size_t begun_ = 0;
  size_t finished_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace s3io
