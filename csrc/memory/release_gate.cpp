#include "memory/release_gate.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/fork_owned.h"

namespace s3io {
namespace {

constexpr std::chrono::microseconds kShortestPause{20};
constexpr std::chrono::microseconds kLongestPause{1000};

struct Pending {
  std::unique_ptr<ReleaseGate::Mark> mark;
  std::function<void()> release;
};

class Watcher {
 public:
  void add(Pending added);
  bool belongs_here() const { return home_.is_here(); }

  std::atomic<int64_t> pending{0};
  std::atomic<int64_t> total{0};

 private:
  void watch();
  bool collect(std::vector<Pending>& watched);

  const HomeProcess home_ = {};
  std::mutex mutex_;
  std::condition_variable to_thread_;
  std::vector<Pending> added_;  // guarded by mutex_, like what follows
  bool running_ = false;
};

void Watcher::add(Pending added) {
  total.fetch_add(1, std::memory_order_relaxed);
  pending.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  added_.push_back(std::move(added));
  if (running_) {
    to_thread_.notify_one();
    return;
  }
  try {
    std::thread([this] { watch(); }).detach();
    running_ = true;
  } catch (const std::system_error&) {
    while (!added_.back().mark->passed()) std::this_thread::sleep_for(kLongestPause);
    added_.back().release();
    added_.pop_back();
    pending.fetch_sub(1, std::memory_order_relaxed);
  }
}

// Adds what is new to `watched`. False when there is nothing to watch, and nothing came for a
// while.
bool Watcher::collect(std::vector<Pending>& watched) {
  std::unique_lock lock(mutex_);
  if (watched.empty() && added_.empty()) {
    to_thread_.wait_until(lock, std::chrono::system_clock::now() + kWaitSlice);
  }
  std::move(added_.begin(), added_.end(), std::back_inserter(watched));
  added_.clear();
  running_ = !watched.empty();
  return running_;
}

void Watcher::watch() {
  std::vector<Pending> watched;
  std::chrono::microseconds pause = kShortestPause;
  while (collect(watched)) {
    const auto passed = std::stable_partition(watched.begin(), watched.end(),
                                              [](Pending& one) { return !one.mark->passed(); });
    const bool progress = passed != watched.end();
    for (auto one = passed; one != watched.end(); ++one) {
      one->release();
      pending.fetch_sub(1, std::memory_order_release);  // who sees 0 sees what was done
    }
    watched.erase(passed, watched.end());
    pause = progress ? kShortestPause : std::min(2 * pause, kLongestPause);
    if (!watched.empty()) std::this_thread::sleep_for(pause);
  }
}

// Made anew in a forked child, which has no watching thread; the parent's is left alone. Never
// destroyed: tensors may die after static destructors ran.
Watcher& watcher() {
  static std::atomic<Watcher*> current{nullptr};
  Watcher* seen = current.load(std::memory_order_acquire);
  while (seen == nullptr || !seen->belongs_here()) {
    auto fresh = std::make_unique<Watcher>();
    if (current.compare_exchange_strong(seen, fresh.get())) return *fresh.release();
  }
  return *seen;
}

}  // namespace

void release_after(std::unique_ptr<ReleaseGate::Mark> mark,
                   std::function<void()> release) noexcept {
  watcher().add({std::move(mark), std::move(release)});
}

int64_t pending_releases() { return watcher().pending.load(); }
int64_t deferred_releases() { return watcher().total.load(); }

}  // namespace s3io
