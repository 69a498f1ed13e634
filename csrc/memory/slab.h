// A fixed number of equal slots in shared memory, each with a state word that any process may
// change.
//
// One process, the producer, takes free slots, fills them and lends them to tensors. Another one,
// the consumer, may receive a lent slot as a handle (slab_arena.h). A word counts who still needs
// the slot:
//
//     bits 63..32  generation: how often the slot was taken; tells a stale handle from a good one
//     bits 31..16  views in the consumer
//     bits 15..2   handles on their way to the consumer
//     bit  1       lent: tensors in the producer view it
//     bit  0       taken: the producer is reading into it, or has a batch ready in it
//
// A slot is free exactly when bits 31..0 are zero; the last one to let go makes it so and wakes who
// waits. All changes are compare-and-swap or add, so a process that dies in between leaves no lock
// behind. What a dead producer left is cleared by the next one (`reclaim`): all but the consumer's
// views. Not before it is safe (`reads_may_be_in_flight`).
//
// Layout of the memory: one huge page whose first bytes are the control block, then the slots.
// Slots of 2 MiB or more are whole huge pages; smaller ones are packed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "memory/shared_memory.h"

namespace s3io {

struct SlabGeometry {
  int64_t slots = 0;
  int64_t slot_bytes = 0;
  int64_t alignment = 0;  // of every slot: a power of two of at most 2 MiB

  // Throws Error(config) for what cannot be.
  void check() const;
  int64_t stride_bytes() const;  // from one slot to the next
  int64_t total_bytes() const;   // control block included
};

class Slab {
 public:
  static constexpr int64_t kMaxSlots = 65536;

  // Memory of its own. Every slot begins at a multiple of the alignment, and of 64: elements of
  // every type can lie at its start.
  explicit Slab(const SlabGeometry& geometry);
  // A part of a memory file that other processes map as well. `claim` is kept open as long.
  Slab(const SlabGeometry& geometry, int fd, int64_t offset, UniqueFd claim = {});

  int64_t slots() const { return geometry_.slots; }
  int64_t slot_bytes() const { return geometry_.slot_bytes; }
  std::byte* slot_data(int64_t slot) const;
  // The first `slots` slots, from the first byte to the last.
  std::span<std::byte> memory(int64_t slots) const;

  // ---- The producer.

  // Takes the free slot with the lowest number, so that few slots circulate and stay in the
  // processor's caches. Returns -1 when none is free. Thread-safe.
  int64_t hold_free_slot();
  void release(int64_t slot);       // taken -> free
  void lend(int64_t slot);          // taken -> lent
  void release_lent(int64_t slot);  // the last tensor in the producer died
  // A handle to a lent slot goes to the consumer. False when 16383 are on their way already.
  bool send(int64_t slot);
  // Whether a dead producer left slots taken, not long before `now`. The kernel does not wait for
  // the reads of a process that is killed: the device may still write into these slots.
  bool reads_may_be_in_flight(Clock::time_point now);
  static constexpr std::chrono::seconds kRestAfterDeath{30};
  // Frees what a dead producer held, says how many slots there are now, and returns how many the
  // consumer still holds.
  int64_t reclaim();

  // ---- The consumer.

  // Turns a handle into a view. False when the handle is stale: received before, or from a
  // producer that died.
  bool receive(int64_t slot, uint32_t generation);
  void release_received(int64_t slot);
  // How many slots the producer uses, of those there is room for.
  int64_t slots_in_use() const { return counted(control_->slots); }

  // ---- Both.

  uint32_t generation(int64_t slot) const;
  int64_t held_slots() const;  // not free, for whatever reason
  int64_t lent_slots() const { return counted(control_->lent); }
  int64_t received_slots() const { return counted(control_->received); }

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
    std::atomic<int64_t> slots;           // that the producer uses
    std::atomic<int64_t> lent;            // slots with bit 1 set; written by the producer
    std::atomic<int64_t> received;        // slots with bits 31..16 set; written by the consumer
    std::atomic<int64_t> rests_since_ns;  // when slots of a dead producer were found; 0: none were
    std::atomic<uint64_t> words[kMaxSlots];
  };
  static_assert(sizeof(Control) <= 2 << 20);
  static_assert(std::atomic<uint64_t>::is_always_lock_free);

  Slab(const SlabGeometry& geometry, SharedMapping memory, UniqueFd claim);
  uint64_t let_go(int64_t slot, uint64_t amount);  // returns the word as it was
  // A number of slots in memory that another process may damage: never more than there are.
  int64_t counted(const std::atomic<int64_t>& count) const {
    return std::clamp<int64_t>(count.load(std::memory_order_relaxed), 0, geometry_.slots);
  }

  SlabGeometry geometry_;
  int64_t stride_bytes_;
  UniqueFd claim_;
  SharedMapping memory_;
  Control* control_;
  std::mutex prepare_mutex_;
  std::vector<bool> prepared_;  // per huge page of the slots, guarded by prepare_mutex_
  std::atomic<int64_t> huge_pages_{0};
  std::atomic<int64_t> small_pages_{0};
};

}  // namespace s3io
