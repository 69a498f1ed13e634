#include "store/range_engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/align.h"
#include "base/processors.h"

namespace s3io {
namespace {

constexpr size_t kMaxIdleReads = 16;
constexpr int64_t kLongestRead = int64_t{1} << 30;  // the kernel cuts reads off at 2 GiB

void check(const RangeEngineConfig& config) {
  constexpr int64_t kMaxConcurrent = 4096;
  if (config.chunk_size < 4096 || config.chunk_size > kLongestRead) {
    throw Error(ErrorKind::config, message("RangeEngineConfig.chunk_size must be between 4096 and ",
                                           kLongestRead, " bytes, not ", config.chunk_size));
  }
  if (config.max_concurrent_ranges < 1 || config.max_concurrent_ranges > kMaxConcurrent) {
    throw Error(ErrorKind::config,
                message("RangeEngineConfig.max_concurrent_ranges must be between 1 and ",
                        kMaxConcurrent, ", not ", config.max_concurrent_ranges));
  }
  if (config.min_split_size < 0 || !(config.range_timeout_s > 0)) {
    throw Error(ErrorKind::config, message("RangeEngineConfig.min_split_size must be >= 0 and "
                                           "range_timeout > 0, not ",
                                           config.min_split_size, " and ", config.range_timeout_s));
  }
}

}  // namespace

RangeEngine::RangeEngine(const Options& options) : options_(options) {
  check(options_.config);
  idle_.reserve(kMaxIdleReads);
}

std::string RangeEngine::engine_name() {
  const std::lock_guard lock(mutex_);
  return engine_name_;
}

std::string RangeEngine::fallback_reason() {
  const std::lock_guard lock(mutex_);
  return fallback_reason_;
}

std::unique_ptr<RangeEngine::Reading> RangeEngine::borrow() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Reading> reading = std::move(idle_.back());
      idle_.pop_back();
      return reading;
    }
  }
  return make_reading();
}

std::unique_ptr<RangeEngine::Reading> RangeEngine::make_reading() {
  const auto depth = options_.splits ? static_cast<int>(options_.config.max_concurrent_ranges) : 1;
  std::string reason;
  auto engine = make_engine({.kind = options_.engine, .depth = depth, .any_thread = true}, &reason);
  ReadQueueOptions queue_options;
  queue_options.min_direct_bytes = options_.min_direct_bytes;
  // Faults are the engine's: with them nothing goes past it.
  const bool shares = options_.splits && options_.faults == nullptr;
  queue_options.copiers = shares ? copiers_for(1) : 1;
  queue_options.min_shared_bytes = options_.config.min_split_size;
  auto reading = std::make_unique<Reading>();
  reading->queue = std::make_unique<ReadQueue>(
      with_faults(std::move(engine), options_.faults.get()), queue_options, &counters_);
  reading->finished.reserve(1);
  const std::lock_guard lock(mutex_);
  engine_name_ = reading->queue->name();
  fallback_reason_ = reason;
  return reading;
}

void RangeEngine::give_back(std::unique_ptr<Reading> reading) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdleReads) idle_.push_back(std::move(reading));
}

void RangeEngine::read(DirectFile& file, ByteRange range, std::byte* data, AlignedBuf& buffer,
                       const WaitCallback& on_wait) {
  std::unique_ptr<Reading> reading = borrow();
  const bool splits = options_.splits && range.length >= options_.config.min_split_size;
  reading->queue->set_chunk_bytes(align_up(splits ? options_.config.chunk_size : kLongestRead,
                                           std::max(options_.alignment, file.alignment())));
  reading->range = {.object = &file, .offset = range.offset, .length = range.length, .data = data};
  try {
    run(*reading, on_wait);
  } catch (...) {
    if (reading->queue->abandon(kAbandonTimeout)) {
      give_back(std::move(reading));
    } else {  // the kernel, or a thread, may yet write into all of these
      buffer.detach();
      file.keep_open();
      static_cast<void>(reading.release());
    }
    throw;
  }
  const std::optional<Error> error = std::move(reading->range.error);
  give_back(std::move(reading));
  if (error) throw Error(*error);
}

void RangeEngine::run(Reading& reading, const WaitCallback& on_wait) const {
  ReadQueue& queue = *reading.queue;
  reading.finished.clear();
  queue.push(reading.range);
  Clock::time_point last_progress = Clock::now();
  int64_t completions_seen = queue.completions();
  while (true) {
    queue.run(reading.finished, kWaitSlice);
    if (!reading.finished.empty()) return;
    if (on_wait) on_wait();
    const int64_t completions = queue.completions();
    if (std::exchange(completions_seen, completions) != completions) last_progress = Clock::now();
    if (Clock::now() - last_progress >
        std::chrono::duration<double>(options_.config.range_timeout_s)) {
      throw Error(
          ErrorKind::read_timeout,
          message(reading.range.object->path(), ": no data for ", options_.config.range_timeout_s,
                  " s; raise RangeEngineConfig.range_timeout if the device is that slow"));
    }
  }
}

}  // namespace s3io
