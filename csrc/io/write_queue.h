// Writes blocks through an IoEngine: keeps several in flight, continues short writes, retries what
// may be retried, and falls back from O_DIRECT where the file system refuses the write itself.
//
// One thread. Does not allocate after construction.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/direct_file.h"
#include "io/io_engine.h"

namespace s3io {

// An open file to write to. The caller owns the descriptor.
struct OutputFile {
  int fd = -1;
  DirectMode mode = DirectMode::automatic;
  int64_t alignment = 1;         // of offset and length; 1: through the page cache
  int64_t memory_alignment = 1;  // at most `alignment`; 4 bytes on many NVMe disks

  bool is_direct() const { return alignment > 1; }
  // Turns O_DIRECT off. What was aligned before stays right.
  void refuse_direct();
};

// Read by other threads at any time; each number is exact, the set of them is not a snapshot.
struct WriteCounters {
  std::atomic<int64_t> requests{0};        // writes submitted to the engine
  std::atomic<int64_t> direct_bytes{0};    // to the device, padding included
  std::atomic<int64_t> buffered_bytes{0};  // to the page cache
  std::atomic<int64_t> copied_bytes{0};    // into a buffer on the way
  std::atomic<int64_t> retries{0};         // repeated after EINTR or EAGAIN
  std::atomic<int64_t> short_writes{0};    // continued
  std::atomic<int64_t> direct_refused{0};  // fell back because O_DIRECT failed
};

class WriteQueue {
 public:
  static constexpr int kNoTag = -1;

  WriteQueue(std::unique_ptr<IoEngine> engine, WriteCounters* counters);

  std::string_view engine_name() const { return engine_->name(); }
  int depth() const { return static_cast<int>(blocks_.size()); }
  int in_flight() const { return in_flight_; }

  // Begins to write `data` (at most 1 GiB, aligned as the file says) at `offset`; fewer than
  // depth() writes are in flight. The file and the bytes stay as they are until the write is over.
  void push(OutputFile& file, int64_t offset, std::span<const std::byte> data, int tag = kNoTag);
  // Hands what was pushed to the kernel, and waits up to `timeout` until at least one write is
  // over. Appends the tags of all that are, but for kNoTag, to `finished`.
  void run(std::vector<int>& finished, milliseconds timeout);

  // What went wrong first since the queue was last idle and `forget_failure` was called.
  struct Failure {
    int error_number = 0;
    int64_t offset = 0;
  };
  const std::optional<Failure>& failure() const { return failure_; }
  void forget_failure() { failure_.reset(); }
  // Writes that came back so far, in whatever state: tells a slow device from a dead one.
  int64_t completions() const { return completions_; }
  // Waits up to `timeout` for what is in flight. True when nothing is left: the queue is as new.
  // Otherwise neither the queue nor the file nor the bytes may be used or freed any more.
  bool abandon(milliseconds timeout) noexcept;

 private:
  struct Block : IoRequest {
    OutputFile* file = nullptr;
    int64_t end = 0;
    int tag = kNoTag;
    int attempts = 0;  // without progress
  };

  bool is_over(Block& block);
  bool may_retry(Block& block, int error_number);
  void fail(const Block& block, int error_number);
  int collect(int wanted, milliseconds timeout);

  std::unique_ptr<IoEngine> engine_;
  WriteCounters* counters_;
  std::vector<Block> blocks_;  // as many as the engine's depth
  std::vector<Block*> free_;
  std::vector<IoRequest*> completed_;
  int in_flight_ = 0;
  int64_t completions_ = 0;
  std::optional<Failure> failure_;
};

}  // namespace s3io
