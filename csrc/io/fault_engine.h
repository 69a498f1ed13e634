// An engine that misbehaves on purpose: wraps another one and returns short reads and writes,
// errors, delays and reordered completions, as a plan says. For tests; requests to io_uring cannot
// be intercepted.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "io/io_engine.h"

namespace s3io {

// In place of an errno: the process ends itself with SIGKILL instead of making the call or request.
inline constexpr int kFaultKill = -1;
// Of calls: hangs until FaultPlan::hang lets it go; then the call is made.
inline constexpr int kFaultHang = -2;

[[noreturn]] void kill_this_process();

// What happens to one request.
struct Fault {
  int error_number = 0;     // fail with this errno, or kFaultKill; 0: do not
  bool short_read = false;  // do about half of it, and at least one byte; a write: whole blocks
  bool lost = false;        // never complete it
  int delay = 0;            // hold its completion back over so many calls of `wait`
};

// Where system calls hang until a test lets them go. Thread-safe.
class Hang {
 public:
  void wait() {
    reached_ = true;
    released_.wait(false);
  }
  void release() {
    released_ = true;
    released_.notify_all();
  }
  bool is_reached() const { return reached_; }

 private:
  std::atomic<bool> reached_{false};
  std::atomic<bool> released_{false};
};

struct FaultPlan {
  uint64_t seed = 0;
  std::map<int64_t, Fault> by_number = {};  // the n-th request submitted, from 0
  double fault_probability = 0;             // for every other one: one of `random_faults`
  std::vector<Fault> random_faults = {};
  bool reorder = false;       // completions come in random order
  int64_t failing_wait = -1;  // from this call of `wait` on, counted from 0, all of them throw
  // The n-th system call of a FileCalls, from 0: fails with this errno, or kFaultKill or
  // kFaultHang.
  std::map<int64_t, int> by_call = {};
  std::shared_ptr<Hang> hang = std::make_shared<Hang>();
};

class FaultEngine final : public IoEngine {
 public:
  FaultEngine(std::unique_ptr<IoEngine> engine, FaultPlan plan);

  int depth() const override { return engine_->depth(); }
  void submit(std::span<IoRequest* const> requests) override;
  int wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) override;
  bool register_buffer(int index, std::span<std::byte> memory) override {
    return engine_->register_buffer(index, memory);
  }
  std::string_view name() const override { return engine_->name(); }

 private:
  Fault fault_for(int64_t number);
  void arrive(IoRequest* request);
  void release_delayed();

  std::unique_ptr<IoEngine> engine_;
  FaultPlan plan_;
  std::mt19937_64 random_;
  int64_t submitted_ = 0;
  int64_t waits_ = 0;
  int in_flight_ = 0;  // given to the wrapped engine
  struct Due {
    Fault fault;
    uint32_t length = 0;  // that the caller asked for
  };
  std::map<const IoRequest*, Due> due_;              // faults of those in flight
  std::vector<std::pair<IoRequest*, int>> delayed_;  // with the calls that are left
  std::vector<IoRequest*> completed_;                // not yet handed to the caller
};

// `engine`, misbehaving as `plan` says; itself when there is no plan.
std::unique_ptr<IoEngine> with_faults(std::unique_ptr<IoEngine> engine, const FaultPlan* plan);

}  // namespace s3io
