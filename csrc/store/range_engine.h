// Reads one byte range into one buffer, a large one as several concurrent ranges that land in
// place.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/byte_range.h"
#include "io/fault_engine.h"
#include "io/read_queue.h"
#include "store/object_store.h"

namespace s3io {

struct RangeEngineConfig {
  int64_t chunk_size = int64_t{1} << 20;      // bytes of one concurrent range
  int64_t max_concurrent_ranges = 16;         // in flight at once, per call
  int64_t min_split_size = int64_t{4} << 20;  // a shorter read is not split
  double range_timeout_s = 30;                // longest wait without progress
};

// Thread-safe: every concurrent call has a ReadQueue of its own, kept for the next call, which then
// allocates nothing.
class RangeEngine {
 public:
  struct Options {
    RangeEngineConfig config;
    bool splits = true;  // false: one read at a time
    EngineKind engine = EngineKind::automatic;
    int64_t min_direct_bytes = 0;
    int64_t alignment = 4096;                           // chunks are multiples of it
    std::shared_ptr<const FaultPlan> faults = nullptr;  // tests only; counts per queue
  };

  // Throws Error(config).
  explicit RangeEngine(const Options& options);

  // Fills `data` (congruent to the range modulo the file's alignment, with room for over-read; see
  // RangeRead). On a timeout `buffer` is given up for good, since reads may yet write into it.
  void read(DirectFile& file, ByteRange range, std::byte* data, AlignedBuf& buffer,
            const WaitCallback& on_wait);

  const ReadCounters& counters() const { return counters_; }
  std::string engine_name();
  // Why `automatic` took threads; empty if it did not, or before the first read.
  std::string fallback_reason();

 private:
  struct Reading {  // what one call needs
    std::unique_ptr<ReadQueue> queue;
    RangeRead range;
    std::vector<RangeRead*> finished;
  };

  std::unique_ptr<Reading> borrow();
  std::unique_ptr<Reading> make_reading();
  void give_back(std::unique_ptr<Reading> reading);
  void run(Reading& reading, const WaitCallback& on_wait) const;

  Options options_;
  ReadCounters counters_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<Reading>> idle_;
  std::string engine_name_;
  std::string fallback_reason_;
};

}  // namespace s3io
