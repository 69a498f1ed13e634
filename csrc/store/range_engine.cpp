#include "store/range_engine.h"

#include <algorithm>
#include <utility>

#include "base/align.h"

namespace s3io {
namespace {

constexpr milliseconds kAbandonTimeout{1000};
constexpr size_t kMaxIdleQueues = 16;
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

RangeEngine::RangeEngine(const Options& options) : options_(options) { check(options_.config); }

std::string RangeEngine::engine_name() {
  const std::lock_guard lock(mutex_);
  return engine_name_;
}

std::unique_ptr<ReadQueue> RangeEngine::borrow() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<ReadQueue> queue = std::move(idle_.back());
      idle_.pop_back();
      return queue;
    }
  }
  const auto depth = options_.splits ? static_cast<int>(options_.config.max_concurrent_ranges) : 1;
  ReadQueueOptions queue_options;
  queue_options.min_direct_bytes = options_.min_direct_bytes;
  auto queue = std::make_unique<ReadQueue>(
      make_engine({.kind = options_.engine, .depth = depth, .any_thread = true}), queue_options,
      &counters_);
  const std::lock_guard lock(mutex_);
  engine_name_ = queue->engine_name();
  return queue;
}

void RangeEngine::give_back(std::unique_ptr<ReadQueue> queue) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdleQueues) idle_.push_back(std::move(queue));
}

void RangeEngine::read(DirectFile& file, ByteRange range, std::byte* data, AlignedBuf& buffer,
                       const WaitCallback& on_wait) {
  std::unique_ptr<ReadQueue> queue = borrow();
  const bool splits = options_.splits && range.length >= options_.config.min_split_size;
  queue->set_chunk_bytes(align_up(splits ? options_.config.chunk_size : kLongestRead,
                                  std::max(options_.alignment, file.alignment())));
  auto request = std::make_unique<RangeRead>();
  *request = {.file = &file, .offset = range.offset, .length = range.length, .data = data};
  try {
    run(*queue, *request, on_wait);
  } catch (...) {
    if (queue->abandon(kAbandonTimeout)) {
      give_back(std::move(queue));
    } else {  // the kernel, or a thread, may yet write into all of these
      buffer.detach();
      static_cast<void>(queue.release());
      static_cast<void>(request.release());
    }
    throw;
  }
  give_back(std::move(queue));
  if (request->failed) throw error_of(*request);
}

void RangeEngine::run(ReadQueue& queue, RangeRead& range, const WaitCallback& on_wait) {
  std::vector<RangeRead*> finished;
  queue.push(range);
  Clock::time_point last_progress = Clock::now();
  int64_t completions_seen = queue.completions();
  while (true) {
    queue.run(finished, kWaitSlice);
    if (!finished.empty()) return;
    if (on_wait) on_wait();
    const int64_t completions = queue.completions();
    if (std::exchange(completions_seen, completions) != completions) last_progress = Clock::now();
    if (Clock::now() - last_progress >
        std::chrono::duration<double>(options_.config.range_timeout_s)) {
      throw Error(ErrorKind::read_timeout,
                  message(range.file->path(), ": no data for ", options_.config.range_timeout_s,
                          " s; raise RangeEngineConfig.range_timeout if the device is that slow"));
    }
  }
}

}  // namespace s3io
