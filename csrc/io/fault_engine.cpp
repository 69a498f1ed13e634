#include "io/fault_engine.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

// What a short write writes: a device stops at the end of a block.
uint32_t shortened(uint32_t length) {
  for (const uint32_t block_bytes : {4096U, 512U}) {
    if (length % block_bytes != 0) continue;
    return std::max(length / 2 / block_bytes, 1U) * block_bytes;
  }
  return std::max(length / 2, 1U);
}

}  // namespace

void kill_this_process() {
  ::kill(::getpid(), SIGKILL);
  std::abort();  // never reached
}

FaultEngine::FaultEngine(std::unique_ptr<IoEngine> engine, FaultPlan plan)
    : engine_(std::move(engine)), plan_(std::move(plan)), random_(plan_.seed) {}

Fault FaultEngine::fault_for(int64_t number) {
  const auto planned = plan_.by_number.find(number);
  if (planned != plan_.by_number.end()) return planned->second;
  if (plan_.random_faults.empty()) return {};
  if (std::uniform_real_distribution<double>(0, 1)(random_) >= plan_.fault_probability) return {};
  const auto last = plan_.random_faults.size() - 1;
  return plan_.random_faults[std::uniform_int_distribution<size_t>(0, last)(random_)];
}

void FaultEngine::submit(std::span<IoRequest* const> requests) {
  for (IoRequest* request : requests) {
    const Fault fault = fault_for(submitted_++);
    if (fault.lost) continue;
    if (fault.error_number == kFaultKill) kill_this_process();
    if (fault.error_number != 0) {
      request->result = -fault.error_number;
      completed_.push_back(request);
      continue;
    }
    if (fault.short_read || fault.delay > 0) due_[request] = {fault, request->length};
    if (fault.short_read && request->operation == IoOperation::write) {
      request->length = shortened(request->length);
    }
    engine_->submit({&request, 1});
    ++in_flight_;
  }
}

void FaultEngine::arrive(IoRequest* request) {
  const auto found = due_.find(request);
  if (found == due_.end()) {
    completed_.push_back(request);
    return;
  }
  const auto [fault, length] = found->second;
  due_.erase(found);
  request->length = length;
  const bool is_read = request->operation == IoOperation::read;
  if (fault.short_read && is_read && request->result > 1) request->result = request->result / 2;
  if (fault.delay > 0) {
    delayed_.emplace_back(request, fault.delay);
  } else {
    completed_.push_back(request);
  }
}

void FaultEngine::release_delayed() {
  for (auto& [request, calls_left] : delayed_) {
    if (--calls_left == 0) completed_.push_back(request);
  }
  std::erase_if(delayed_, [](const auto& delayed) { return delayed.second == 0; });
}

int FaultEngine::wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) {
  if (plan_.failing_wait >= 0 && waits_++ >= plan_.failing_wait) {
    throw Error(ErrorKind::read, "the engine cannot wait for its reads");
  }
  release_delayed();
  if (in_flight_ > 0) {
    std::vector<IoRequest*> arrived(static_cast<size_t>(depth()));
    const int missing = std::max(1, min_count - static_cast<int>(completed_.size()));
    const int count = engine_->wait(arrived, missing, timeout);
    in_flight_ -= count;
    for (IoRequest* request : std::span(arrived).first(static_cast<size_t>(count))) {
      arrive(request);
    }
  } else if (completed_.empty() && delayed_.empty()) {
    std::this_thread::sleep_for(timeout);  // only lost reads are left
  }
  if (plan_.reorder) std::shuffle(completed_.begin(), completed_.end(), random_);
  const size_t count = std::min(done.size(), completed_.size());
  std::copy_n(completed_.begin(), count, done.begin());
  completed_.erase(completed_.begin(), completed_.begin() + static_cast<std::ptrdiff_t>(count));
  return static_cast<int>(count);
}

std::unique_ptr<IoEngine> with_faults(std::unique_ptr<IoEngine> engine, const FaultPlan* plan) {
  if (plan == nullptr) return engine;
  return std::make_unique<FaultEngine>(std::move(engine), *plan);
}

}  // namespace s3io
