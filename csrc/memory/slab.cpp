#include "memory/slab.h"

#include <algorithm>

#include "base/align.h"
#include "base/error.h"
#include "base/futex.h"

namespace s3io {
namespace {

constexpr uint64_t kHoldsMask = 0xffff'ffff;
constexpr uint64_t kOneGeneration = uint64_t{1} << 32;

int64_t checked_stride(int64_t slots, int64_t slot_bytes, int64_t alignment) {
  if (slots < 1 || slots > Slab::kMaxSlots) {
    throw Error(ErrorKind::config, message("capacity must be between 1 and ", Slab::kMaxSlots,
                                           " buffers, not ", slots));
  }
  if (!is_power_of_two(alignment) || alignment > kHugePageBytes) {
    throw Error(ErrorKind::config,
                message("alignment must be a power of two of at most 2 MiB, not ", alignment));
  }
  constexpr int64_t kMaxTotal = int64_t{1} << 46;
  if (slot_bytes < 1 || slot_bytes > kMaxTotal / slots) {
    throw Error(ErrorKind::config,
                message("buffer_size must be at least 1 byte and capacity * buffer_size at most ",
                        kMaxTotal, " bytes, not ", slots, " * ", slot_bytes));
  }
  return align_up(slot_bytes, slot_bytes >= kHugePageBytes ? kHugePageBytes
                                                           : std::max(alignment, kCacheLineBytes));
}

}  // namespace

Slab::Slab(int64_t slots, int64_t slot_bytes, int64_t alignment)
    : slots_(slots),
      slot_bytes_(slot_bytes),
      stride_bytes_(checked_stride(slots, slot_bytes, alignment)),
      memory_(kHugePageBytes + slots * stride_bytes_),
      control_(reinterpret_cast<Control*>(memory_.data())),  // a fresh memfd reads as zeros
      prepared_(static_cast<size_t>(memory_.size() / kHugePageBytes)) {}

std::byte* Slab::slot_data(int64_t slot) const {
  return memory_.data() + kHugePageBytes + slot * stride_bytes_;
}

int64_t Slab::hold_free_slot() {
  for (int64_t slot = 0; slot < slots_; ++slot) {
    auto& word = control_->words[slot];
    uint64_t seen = word.load(std::memory_order_relaxed);
    if ((seen & kHoldsMask) != 0) continue;
    if (word.compare_exchange_strong(seen, seen + kOneGeneration + 1, std::memory_order_acquire,
                                     std::memory_order_relaxed)) {
      return slot;
    }
  }
  return -1;
}

void Slab::release(int64_t slot) {
  control_->words[slot].fetch_sub(1, std::memory_order_release);
  // Sequentially consistent on both sides: either the waiter sees the new count, or we see the
  // waiter.
  control_->releases.fetch_add(1);
  if (control_->waiters.load() > 0) futex_wake_all(control_->releases);
}

uint32_t Slab::generation(int64_t slot) const {
  return static_cast<uint32_t>(control_->words[slot].load(std::memory_order_relaxed) >> 32);
}

int64_t Slab::held_slots() const {
  int64_t held = 0;
  for (int64_t slot = 0; slot < slots_; ++slot) {
    held += (control_->words[slot].load(std::memory_order_relaxed) & kHoldsMask) != 0 ? 1 : 0;
  }
  return held;
}

void Slab::wait_for_release(uint32_t seen, nanoseconds timeout) {
  control_->waiters.fetch_add(1);
  if (control_->releases.load() == seen) futex_wait(control_->releases, seen, timeout);
  control_->waiters.fetch_sub(1);
}

void Slab::wake_waiters() {
  control_->releases.fetch_add(1);
  futex_wake_all(control_->releases);
}

void Slab::prepare(int64_t slot, int64_t size_bytes) {
  const int64_t begin = slot * stride_bytes_;
  const int64_t first_page = begin / kHugePageBytes;
  const int64_t last_page = (begin + std::max<int64_t>(size_bytes, 1) - 1) / kHugePageBytes;
  const std::lock_guard lock(prepare_mutex_);
  for (int64_t page = first_page; page <= last_page; ++page) {
    if (prepared_[static_cast<size_t>(page)]) continue;
    const bool huge = prepare_huge_page(memory_.data() + (page + 1) * kHugePageBytes);
    (huge ? huge_pages_ : small_pages_).fetch_add(1, std::memory_order_relaxed);
    prepared_[static_cast<size_t>(page)] = true;
  }
}

}  // namespace s3io
