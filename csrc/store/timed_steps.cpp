#include "store/timed_steps.h"

#include <exception>
#include <system_error>
#include <thread>
#include <utility>

namespace s3io {
namespace {

// For the step under way when the caller gives up of its own accord: a device that only is slow
// comes back, and nothing is left behind.
constexpr milliseconds kEndTimeout{1000};

std::thread started(const std::function<void()>& body, const std::string& path) {
  try {
    return std::thread(body);
  } catch (const std::system_error& error) {
    throw Error(ErrorKind::out_of_memory,
                message(path, ": cannot start the thread that writes with a time limit: ",
                        error.what(), "; raise the limit of processes (ulimit -u)"));
  }
}

}  // namespace

void TimedSteps::run(const std::string& path, double timeout_s, const WaitCallback& on_wait,
                     Work work) {
  const auto steps = std::make_shared<TimedSteps>(std::move(work));
  std::thread thread = started([steps] { steps->perform(); }, path);
  milliseconds patience = kEndTimeout;
  try {
    while (!steps->wait(kWaitSlice)) {
      if (on_wait) on_wait();
      if (const std::optional<Step> hung = steps->give_up_after(timeout_s)) {
        patience = milliseconds(0);
        throw Error(ErrorKind::write_timeout,
                    message(path, ": ", hung->name, " did not come back for ", timeout_s, " s",
                            hung->consequence,
                            "; raise RangeEngineConfig.range_timeout if the device is that slow"));
      }
    }
  } catch (...) {
    steps->give_up();
    if (steps->wait(patience)) {
      thread.join();
    } else {
      thread.detach();
    }
    throw;
  }
  thread.join();
  steps->throw_failure();
}

void TimedSteps::begin(const char* name, const char* consequence) {
  const std::lock_guard lock(mutex_);
  if (given_up_) throw GivenUp{};
  step_ = {name, consequence};
  begun_ = Clock::now();
}

void TimedSteps::perform() noexcept {
  std::optional<Error> failure = do_work();
  work_ = nullptr;  // what it owns may take as long to close as any step
  const std::lock_guard lock(mutex_);
  failure_ = std::move(failure);
  done_ = true;
  ended_.notify_all();
}

std::optional<Error> TimedSteps::do_work() noexcept {
  try {
    work_(*this);
  } catch (const Error& error) {
    return error;
  } catch (const GivenUp&) {  // nobody asks
  } catch (const std::exception& error) {
    return Error(ErrorKind::out_of_memory, error.what());
  }
  return std::nullopt;
}

bool TimedSteps::wait(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  // The system clock: ThreadSanitizer does not know waits on the monotonic one.
  return ended_.wait_until(lock, std::chrono::system_clock::now() + timeout,
                           [this] { return done_; });
}

void TimedSteps::throw_failure() {
  const std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
}

std::optional<TimedSteps::Step> TimedSteps::give_up_after(double timeout_s) {
  const std::lock_guard lock(mutex_);
  if (done_ || Clock::now() - begun_ <= std::chrono::duration<double>(timeout_s)) {
    return std::nullopt;
  }
  given_up_ = true;
  return step_;
}

void TimedSteps::give_up() {
  const std::lock_guard lock(mutex_);
  given_up_ = true;
}

}  // namespace s3io
