#include "base/fork_gate.h"

#include <pthread.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <new>

namespace s3io {
namespace {

class Gate {
 public:
  void enter() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return forking_ == 0; });
    ++at_work_;
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    if (--at_work_ == 0) changed_.notify_all();
  }

  void begin_fork() {
    std::unique_lock lock(mutex_);
    ++forking_;
    changed_.wait(lock, [this] { return at_work_ == 0; });
  }

  void end_fork() {
    const std::lock_guard lock(mutex_);
    if (--forking_ == 0) changed_.notify_all();
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  int at_work_ = 0;
  int forking_ = 0;  // by several threads at once
};

// Made, and in a forked child made anew: a thread that it does not have may have the old one's
// lock. Never destroyed.
Gate* make_gate() {
  alignas(Gate) static std::array<std::byte, sizeof(Gate)> memory;
  return new (memory.data()) Gate;
}

Gate* the_gate = nullptr;

bool open_gate() {
  the_gate = make_gate();
  return ::pthread_atfork([] { the_gate->begin_fork(); }, [] { the_gate->end_fork(); },
                          [] { the_gate = make_gate(); }) == 0;
}

}  // namespace

NotWhileForking::NotWhileForking() {
  [[maybe_unused]] static const bool is_open = open_gate();
  the_gate->enter();
}

NotWhileForking::~NotWhileForking() { the_gate->leave(); }

}  // namespace s3io
