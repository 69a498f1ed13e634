// System calls that may never come back (fsync or rename on a file system that hangs), made one
// after the other in a thread of their own, so that whoever waits for them can give up.
//
// Each step has the time of the limit to itself: many steps may take long together. When the
// waiting side gives up, the step under way goes on, and no other one begins. The thread is then
// left behind with what its work owns, which is destroyed there when the call comes back.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "store/object_store.h"

namespace s3io {

class TimedSteps {
 public:
  // Owns all that it touches: it may outlive its caller. Throws nothing but Error.
  using Work = std::function<void(TimedSteps&)>;

  // Does the work in a thread and waits for it; on return the work is destroyed, too. Throws what
  // the work throws; Error(write_timeout) naming `path`, at once, when a step takes longer than
  // `timeout_s`; what `on_wait` throws, within a second; Error(out_of_memory) without a thread.
  static void run(const std::string& path, double timeout_s, const WaitCallback& on_wait,
                  Work work);

  explicit TimedSteps(Work work) : work_(std::move(work)) {}

  // The work, before each call that may hang: what it does, as in "<path>: <name> did not come
  // back", and what follows from that ("" or "; ..."). Both live as long as the program. Ends the
  // work by an exception of its own when nobody waits for it any more.
  void begin(const char* name, const char* consequence = "");

 private:
  struct Step {
    const char* name = "";
    const char* consequence = "";
  };
  struct GivenUp {};

  void perform() noexcept;  // the thread
  std::optional<Error> do_work() noexcept;
  bool wait(milliseconds timeout);
  void throw_failure();
  // The step under way, if it takes too long: it is the last one then.
  std::optional<Step> give_up_after(double timeout_s);
  void give_up();

  Work work_;         // the thread's
  std::mutex mutex_;  // guards what follows
  std::condition_variable ended_;
  Step step_;
  Clock::time_point begun_ = Clock::now();
  bool given_up_ = false;
  bool done_ = false;
  std::optional<Error> failure_;
};

}  // namespace s3io
