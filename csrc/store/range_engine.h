// Reads one byte range into one buffer, a large one as several concurrent ranges that land in
// place.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "memory/aligned_buf.h"
#include "store/store.h"

namespace s3io {

struct RangeEngineConfig {
  int64_t chunk_size = int64_t{1} << 20;      // bytes of one concurrent range
  int64_t max_concurrent_ranges = 16;         // in flight at once, per call
  int64_t min_split_size = int64_t{4} << 20;  // a shorter read is not split
  double range_timeout_s = 30;                // longest wait without progress
};

// What an error says when nothing came for so long.
std::string late_text(const std::string& path, double timeout_s);

// Thread-safe: every concurrent call has a reader of its own, kept for the next call, which then
// allocates nothing.
class RangeEngine {
 public:
  struct Options {
    RangeEngineConfig config;
    bool splits = true;        // false: one read at a time
    int64_t alignment = 4096;  // chunks are multiples of it
  };

  // Throws Error(config). The store outlives it.
  RangeEngine(Store& store, const Options& options);

  // Fills `data` (congruent to the range modulo the object's blocks, with room for over-read; see
  // RangeRead). On a timeout `buffer` is given up for good, since reads may yet write into it.
  void read(Object& object, ByteRange range, std::byte* data, AlignedBuf& buffer,
            const WaitCallback& on_wait);

  const ReadCounters& counters() const { return counters_; }
  std::string engine_name();  // empty before the first read

 private:
  struct Reading {  // what one call needs
    std::unique_ptr<RangeReader> reader;
    RangeRead range;
    std::vector<RangeRead*> finished;
  };

  std::unique_ptr<Reading> borrow();
  std::unique_ptr<Reading> make_reading();
  void give_back(std::unique_ptr<Reading> reading);
  void run(Reading& reading, const WaitCallback& on_wait) const;

  Store& store_;
  Options options_;
  ReadCounters counters_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<Reading>> idle_;
  std::string engine_name_;
};

}  // namespace s3io
