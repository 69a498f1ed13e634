// The seam between a store and those who read from it: whole byte ranges of objects into memory,
// many in flight. Files are read by a ReadQueue.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace s3io {

// A version of an object, as far as its store tells: another size or time of change is another one.
struct ObjectVersion {
  uint64_t device = 0;
  uint64_t inode = 0;  // 0: not compared
  int64_t size_bytes = 0;
  int64_t modified_ns = 0;  // since 1970

  bool operator==(const ObjectVersion&) const = default;
};

// An object that a store has opened: one version of it. Any thread.
class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  virtual const std::string& path() const = 0;  // as errors name it
  virtual int64_t size() const = 0;             // bytes, when it was opened
  // Reads write whole blocks of so many bytes of the object, a power of two: up to one block too
  // much on either side of a range. 1: nothing but the range.
  virtual int64_t block_bytes() const = 0;
  // Throws Error(file_changed) if the store has another version of it by now.
  virtual void check_unchanged() const = 0;
  // Whether reads tell that, and nothing else does: then a range of no bytes is read, too.
  virtual bool is_checked_by_reads() const { return false; }
  // Never lets go of what it holds: reads that did not come back may yet use it.
  virtual void keep_open() = 0;
  // Has bytes that will soon be read brought nearer, if that helps: so many are on their way.
  virtual int64_t prefetch(int64_t /*offset*/, int64_t /*length*/) { return 0; }
};

// One range of at least one byte, or of none where the object is_checked_by_reads. The caller owns
// it, and the memory, until it comes back from `run`.
//
// `data` receives the byte at `offset`, and is congruent to it modulo the object's blocks. The
// caller leaves room for the blocks that the range does not fill.
struct RangeRead {
  Object* object = nullptr;  // opened by the store that made the reader
  int64_t offset = 0;
  int64_t length = 0;
  std::byte* data = nullptr;
  int buffer_index = -1;    // registered with the reader, or -1
  int64_t chunk_bytes = 0;  // most bytes of one read of it; 0: as ReaderOptions say
  void* owner = nullptr;    // for the caller
  // What the caller wants of it is compared with a checksum afterwards: for the counters.
  bool has_checksums = false;

  std::optional<Error> error = std::nullopt;  // out: what went wrong first

  // The reader's own; after `abandon`, `parts_in_flight` says what is still to come.
  int64_t next_offset = 0;
  int parts_in_flight = 0;
  RangeRead* next = nullptr;
};

// Read by other threads at any time; each number is exact, the set of them is not a snapshot.
struct ReadCounters {
  std::atomic<int64_t> requests{0};        // reads submitted to the engine, and shared copies
  std::atomic<int64_t> direct_bytes{0};    // read from the device, over-read included
  std::atomic<int64_t> cached_bytes{0};    // found in the page cache
  std::atomic<int64_t> buffered_bytes{0};  // read through the page cache, where it may be or not
  std::atomic<int64_t> filled_bytes{0};    // brought into the page cache before they were read
  std::atomic<int64_t> retries{0};         // repeated after EINTR or EAGAIN, or directly after all
  std::atomic<int64_t> short_reads{0};     // reads that were continued
  std::atomic<int64_t> direct_refused{0};  // reads that fell back because O_DIRECT failed
  // Of objects that came over a network: of ranges with checksums, and of those without.
  std::atomic<int64_t> verified_bytes{0};
  std::atomic<int64_t> unverified_bytes{0};
};

// One thread at a time. Does not allocate in the steady state.
class RangeReader {
 public:
  RangeReader() = default;
  RangeReader(const RangeReader&) = delete;
  RangeReader& operator=(const RangeReader&) = delete;
  virtual ~RangeReader() = default;

  // Appends a range; ranges are begun in the order in which they were pushed.
  virtual void push(RangeRead& range) = 0;
  // Works for up to `timeout`, until at least one range is finished, or until there is no backlog
  // any more. Appends what is finished to `finished` (which should have the capacity for all that
  // were pushed).
  virtual void run(std::vector<RangeRead*>& finished, milliseconds timeout) = 0;
  // Whether ranges wait for others, because as many are in flight as may be.
  virtual bool has_backlog() const = 0;
  // True when every range pushed has come back.
  virtual bool idle() const = 0;
  // Parts of ranges that came back so far, in whatever state: tells a slow store from a dead one.
  virtual int64_t completions() const = 0;
  // Forgets what was not begun and waits up to `timeout` for what is in flight. True when nothing
  // is left: the reader is as new. Otherwise the memory of what is in flight may still be written
  // to: neither it nor the reader may be used again, or destroyed.
  virtual bool abandon(milliseconds timeout) noexcept = 0;
  // Tells it about memory that many ranges will use; false where that does not help. Everything
  // works without.
  virtual bool register_buffer(int index, std::span<std::byte> memory) = 0;
  // What statistics call it.
  virtual std::string_view name() const = 0;
  // A descriptor that poll(2) finds readable when `run` has something to do, for who waits for
  // several readers; -1: there is none, and `run` must be called to find out.
  virtual int ready_fd() { return -1; }
};

}  // namespace s3io
