// System calls that may never come back (fsync or rename on a file system that hangs), made one
// after the other in a thread of their own, so that whoever waits for them can give up.
//
// Each step has the time of the limit to itself: many steps may take long together. Time in which
// this process was stopped, or the machine asleep, does not count. When the waiting side gives up,
// the step under way goes on, and no other one begins. The thread is then left behind with what its
// work owns, which is destroyed there when the call comes back.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "store/store.h"

namespace s3io {

class TimedSteps {
 public:
  // Owns all that it touches: it may outlive its caller. Throws nothing but Error.
  using Work = std::function<void(TimedSteps&)>;

  // Does the work in a thread and waits for it; on return the work is destroyed, too, unless that
  // hangs. Throws what the work throws; Error(write_timeout) naming `path`, at once, when a step
  // takes longer than `timeout_s`; what `on_wait` throws, within a second; Error(out_of_memory)
  // without a thread. An Error of `on_wait` comes with what follows from the step under way, and
  // not at all if the work is over by then: its own result counts.
  static void run(const std::string& path, double timeout_s, const WaitCallback& on_wait,
                  Work work);

  explicit TimedSteps(Work work) : work_(std::move(work)) {}

  // The work, before each call that may hang: what it does, as in "<path>: <name> did not come
  // back", and what follows from that ("" or "; ..."). Both live as long as the program. Ends the
  // work by an exception of its own when nobody waits for it any more.
  void begin(const char* name, const char* consequence = "");
  // The same for a call that completes the one before it: it is made even if nobody waits any more.
  void go_on(const char* name, const char* consequence = "");

 private:
  struct Step {
    const char* name = "";
    const char* consequence = "";
  };
  struct GivenUp {};
  enum class Outcome : uint8_t { open, succeeded, failed, given_up };

  void perform() noexcept;  // the thread
  Outcome do_work(std::optional<Error>& failure) noexcept;
  bool wait(milliseconds timeout);
  // The step under way, if it takes too long: it is the last one then.
  std::optional<Step> give_up_after(double timeout_s);
  void give_up();
  void enter(Step step);
  Step step();
  // Returns whether the work succeeded; throws its error if it failed.
  bool has_succeeded();

  Work work_;         // the thread's
  std::mutex mutex_;  // guards what follows
  std::condition_variable ended_;
  Step step_;
  Clock::time_point looked_ = Clock::now();
  Clock::duration waited_{0};  // for the step
  bool given_up_ = false;
  Outcome outcome_ = Outcome::open;  // of the work, which then is destroyed
  std::optional<Error> failure_;
  bool done_ = false;
};

}  // namespace s3io
