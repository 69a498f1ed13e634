#include "store/timed_steps.h"

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include "base/limits.h"

namespace s3io {
namespace {

// For the step under way when the caller gives up of its own accord: a device that only is slow
// comes back, and nothing is left behind.
constexpr milliseconds kEndTimeout{1000};
// What one look adds to the waiting time at most: whoever is stopped does not see the time pass.
constexpr milliseconds kMostOfLook = 2 * kWaitSlice;

std::thread started(const std::function<void()>& body, const std::string& path) {
  try {
    return std::thread(body);
  } catch (const std::system_error& error) {
    throw thread_error(message("the thread that writes ", path, " with a time limit"),
                       error.code().value());
  }
}

void leave_or_join(std::thread& thread, bool has_ended) {
  if (has_ended) {
    thread.join();
  } else {
    thread.detach();
  }
}

}  // namespace

void TimedSteps::run(const std::string& path, double timeout_s, const WaitCallback& on_wait,
                     Work work) {
  const auto steps = std::make_shared<TimedSteps>(std::move(work));
  std::thread thread = started([steps] { steps->perform(); }, path);
  std::optional<Error> refusal;  // of `on_wait`
  std::optional<Step> hung;
  bool has_ended = false;
  try {
    while (!has_ended && !(hung = steps->give_up_after(timeout_s))) {
      has_ended = steps->wait(kWaitSlice);
      if (!has_ended && on_wait) on_wait();
    }
  } catch (const Error& error) {
    refusal = error;
  } catch (...) {
    steps->give_up();
    leave_or_join(thread, steps->wait(kEndTimeout));
    throw;
  }
  if (refusal) {
    steps->give_up();
    has_ended = steps->wait(kEndTimeout);
  }
  leave_or_join(thread, has_ended);
  if (steps->has_succeeded()) return;
  if (refusal) throw Error(refusal->kind(), message(refusal->what(), steps->step().consequence));
  throw Error(
      ErrorKind::write_timeout,
      message(path, ": ", hung->name, " did not come back for ", timeout_s, " s", hung->consequence,
              "; raise RangeEngineConfig.range_timeout if the device is that slow"));
}

void TimedSteps::begin(const char* name, const char* consequence) {
  const std::lock_guard lock(mutex_);
  if (given_up_) {
    step_ = {};
    throw GivenUp{};
  }
  enter({name, consequence});
}

void TimedSteps::go_on(const char* name, const char* consequence) {
  const std::lock_guard lock(mutex_);
  enter({name, consequence});
}

void TimedSteps::enter(Step step) {
  step_ = step;
  looked_ = Clock::now();
  waited_ = Clock::duration(0);
}

void TimedSteps::perform() noexcept {
  std::optional<Error> failure;
  const Outcome outcome = do_work(failure);
  {
    const std::lock_guard lock(mutex_);
    outcome_ = outcome;
    failure_ = std::move(failure);
  }
  work_ = nullptr;  // what it owns may take as long to close as any step
  const std::lock_guard lock(mutex_);
  done_ = true;
  ended_.notify_all();
}

TimedSteps::Outcome TimedSteps::do_work(std::optional<Error>& failure) noexcept {
  try {
    work_(*this);
    return Outcome::succeeded;
  } catch (const GivenUp&) {
    return Outcome::given_up;
  } catch (const Error& error) {
    failure = error;
  } catch (const std::exception& error) {
    failure = Error(ErrorKind::out_of_memory, error.what());
  }
  return Outcome::failed;
}

bool TimedSteps::wait(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  // The system clock: ThreadSanitizer does not know waits on the monotonic one.
  return ended_.wait_until(lock, std::chrono::system_clock::now() + timeout,
                           [this] { return done_; });
}

std::optional<TimedSteps::Step> TimedSteps::give_up_after(double timeout_s) {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  waited_ += std::min<Clock::duration>(now - looked_, kMostOfLook);
  looked_ = now;
  if (done_ || waited_ <= std::chrono::duration<double>(timeout_s)) return std::nullopt;
  given_up_ = true;
  return step_;
}

void TimedSteps::give_up() {
  const std::lock_guard lock(mutex_);
  given_up_ = true;
}

TimedSteps::Step TimedSteps::step() {
  const std::lock_guard lock(mutex_);
  return step_;
}

bool TimedSteps::has_succeeded() {
  const std::lock_guard lock(mutex_);
  if (outcome_ == Outcome::failed) throw Error(*failure_);
  return outcome_ == Outcome::succeeded;
}

}  // namespace s3io
