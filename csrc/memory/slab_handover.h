// How a slot goes from the process that filled it to the one that consumes it, bytes untouched.
//
// Producer: `send` finds the slab that an address lies in and makes a handle, which keeps the slot
// from being reused. Consumer: `receive` turns it into memory to view, once.
//
// Note: never stuck. The producer can only go on if the consumer does not hold all slots. So when
// too few would be left, `receive` copies the bytes out and lets go of the slot: slower, counted,
// but a program that keeps every batch still runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "memory/release_gate.h"
#include "memory/slab_arena.h"

namespace s3io {

// ---- The producer.

// Makes the slots of a pool known to `send`, as long as `slab` lives.
void announce(uint64_t arena, int64_t segment, const std::shared_ptr<Slab>& slab);
// A handle to [begin, begin + length), which a tensor of this process holds; nothing when these
// bytes are not in one slot of an announced slab.
std::optional<SlotHandle> send(const std::byte* begin, int64_t length);
// For a handle that never left this process: the slot does not wait for it any more.
void take_back(const SlotHandle& handle);

// ---- The consumer.

struct HandoverCounters {
  std::atomic<int64_t> tensors{0};         // received
  std::atomic<int64_t> bytes{0};           // of those
  std::atomic<int64_t> copied_tensors{0};  // copied out, so that the producer has slots to fill
  std::atomic<int64_t> copied_bytes{0};
  std::atomic<int64_t> unmapped_tensors{0};  // read from the file: the segment cannot be mapped
  std::atomic<int64_t> stale_handles{0};     // refused
};

// Bytes in this process: a view of a slot, or a copy.
struct Received {
  std::byte* data = nullptr;
  void* owner = nullptr;  // for `free_received`, exactly once
};
void free_received(void* owner);

class Consumer {
 public:
  explicit Consumer(std::shared_ptr<SlabArena> arena) : arena_(std::move(arena)) {}

  // Throws Error(data) for a handle that is stale, Error(out_of_memory).
  Received receive(const SlotHandle& handle);
  // Slots are let go only behind this gate from now on; for memory that a device reads.
  void set_gate(std::shared_ptr<ReleaseGate> gate);

  const std::shared_ptr<SlabArena>& arena() const { return arena_; }
  const HandoverCounters& counters() const { return counters_; }

 private:
  Received copy_unmapped(const SlotHandle& handle);
  std::shared_ptr<ReleaseGate> gate();

  const std::shared_ptr<SlabArena> arena_;
  HandoverCounters counters_;
  std::mutex mutex_;
  std::shared_ptr<ReleaseGate> gate_;  // guarded by mutex_
};

}  // namespace s3io
