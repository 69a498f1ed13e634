#include "store/range_engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/align.h"
#include "base/fork_owned.h"
#include "store/waiting.h"

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

RangeEngine::RangeEngine(Store& store, const Options& options) : store_(store), options_(options) {
  check(options_.config);
  idle_.reserve(kMaxIdleReads);
}

std::string RangeEngine::engine_name() {
  const std::lock_guard lock(mutex_);
  return engine_name_;
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
  const RangeEngineConfig& config = options_.config;
  auto reading = std::make_unique<Reading>();
  reading->reader = store_.make_reader(
      {.depth = options_.splits ? static_cast<int>(config.max_concurrent_ranges) : 1,
       .any_thread = true,
       .sharing_processes = options_.splits ? 1 : 0,
       .min_shared_bytes = config.min_split_size},
      counters_);
  reading->finished.reserve(1);
  const std::lock_guard lock(mutex_);
  engine_name_ = reading->reader->name();
  return reading;
}

void RangeEngine::give_back(std::unique_ptr<Reading> reading) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdleReads) idle_.push_back(std::move(reading));
}

void RangeEngine::read(Object& object, ByteRange range, std::byte* data, AlignedBuf& buffer,
                       const WaitCallback& on_wait) {
  std::unique_ptr<Reading> reading = borrow();
  const bool splits = options_.splits && range.length >= options_.config.min_split_size;
  reading->range = {.object = &object,
                    .offset = range.offset,
                    .length = range.length,
                    .data = data,
                    .chunk_bytes = align_up(splits ? options_.config.chunk_size : kLongestRead,
                                            std::max(options_.alignment, object.block_bytes()))};
  try {
    run(*reading, on_wait);
  } catch (...) {
    if (reading->reader->abandon(kAbandonTimeout)) {
      give_back(std::move(reading));
    } else {  // the kernel, or a thread, may yet write into all of these
      buffer.detach();
      object.keep_open();
      never_destroy(std::move(reading));
    }
    throw;
  }
  const std::optional<Error> error = std::move(reading->range.error);
  give_back(std::move(reading));
  if (error) throw Error(*error);
}

void RangeEngine::run(Reading& reading, const WaitCallback& on_wait) const {
  reading.reader->push(reading.range);
  const double timeout_s = options_.config.range_timeout_s;
  run_until(
      *reading.reader, reading.finished, timeout_s, on_wait, [](RangeRead&) { return true; },
      [&] { return late_text(reading.range.object->path(), timeout_s); });
}

std::string late_text(const std::string& path, double timeout_s) {
  return message(path, ": no data for ", timeout_s,
                 " s; raise RangeEngineConfig.range_timeout if the device is that slow");
}

}  // namespace s3io
