// A fixed number of equal slots in shared memory, each with a state word that any process may
// change.
//
// Layout of the memfd: one huge page whose first bytes are the control block (counters, then one
// 64-bit word per slot), then the slots. Slots of 2 MiB or more are whole huge pages; smaller ones
// are packed. A slot is free when its word says that nobody holds it; all changes are
// compare-and-swap, so a process that dies in between leaves no lock behind.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "memory/shared_memory.h"

namespace s3io {

class Slab {
 public:
  static constexpr int64_t kMaxSlots = 65536;

  // `alignment` is a power of two of at most 2 MiB; every slot begins at a multiple of it, and of
  // 64: elements of every type can lie at its start.
  Slab(int64_t slots, int64_t slot_bytes, int64_t alignment);

  int64_t slots() const { return slots_; }
  int64_t slot_bytes() const { return slot_bytes_; }
  std::byte* slot_data(int64_t slot) const;

  // Claims the free slot with the lowest number, so that few slots circulate and stay in the
  // processor's caches. Returns -1 when none is free. Thread-safe.
  int64_t hold_free_slot();
  // Gives up one hold; the last one frees the slot and wakes those who wait for one.
  void release(int64_t slot);
  // How often the slot was claimed so far: tells a stale reference from a current one.
  uint32_t generation(int64_t slot) const;
  int64_t held_slots() const;

  // Sleeps until a slot is released after `seen` was read, for at most `timeout`.
  uint32_t release_count() const { return control_->releases.load(std::memory_order_acquire); }
  void wait_for_release(uint32_t seen, nanoseconds timeout);
  // Makes every waiter look again, as if a slot had been released.
  void wake_waiters();

  // Backs the first `size_bytes` of the slot with physical memory, huge pages where possible; cheap
  // when done before.
  void prepare(int64_t slot, int64_t size_bytes);
  int64_t huge_pages() const { return huge_pages_.load(std::memory_order_relaxed); }
  int64_t small_pages() const { return small_pages_.load(std::memory_order_relaxed); }

 private:
  struct Control {
    std::atomic<uint32_t> releases;
    std::atomic<uint32_t> waiters;
    std::atomic<uint64_t> words[kMaxSlots];  // high half: generation; low half: number of holds
  };
  static_assert(sizeof(Control) <= 2 << 20);
  static_assert(std::atomic<uint64_t>::is_always_lock_free);

  int64_t slots_;
  int64_t slot_bytes_;
  int64_t stride_bytes_;
  SharedMemory memory_;
  Control* control_;
  std::mutex prepare_mutex_;
  std::vector<bool> prepared_;  // per huge page of the slots, guarded by prepare_mutex_
  std::atomic<int64_t> huge_pages_{0};
  std::atomic<int64_t> small_pages_{0};
};

}  // namespace s3io
