#include "memory/slab.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/align.h"
#include "base/error.h"
#include "base/futex.h"

namespace s3io {
namespace {

constexpr uint64_t kTaken = 1;
constexpr uint64_t kLent = 2;
constexpr uint64_t kOneHandle = 4;
constexpr uint64_t kHandles = 0xfffc;
constexpr uint64_t kOneView = 0x1'0000;
constexpr uint64_t kViews = 0xffff'0000;
constexpr uint64_t kInUse = 0xffff'ffff;
constexpr uint64_t kOneGeneration = uint64_t{1} << 32;

uint32_t generation_of(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

// Named where possible, so that people find it in /proc/<pid>/maps.
SharedMapping memory_of_this_process(int64_t size_bytes) {
  const UniqueFd fd(::memfd_create("torch_s3io", MFD_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), size_bytes) != 0) return SharedMapping(size_bytes);
  return {fd.get(), 0, size_bytes};
}

}  // namespace

void SlabGeometry::check() const {
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
}

int64_t SlabGeometry::stride_bytes() const {
  return align_up(slot_bytes, slot_bytes >= kHugePageBytes ? kHugePageBytes
                                                           : std::max(alignment, kCacheLineBytes));
}

int64_t SlabGeometry::total_bytes() const {
  return kHugePageBytes + align_up(slots * stride_bytes(), kHugePageBytes);
}

Slab::Slab(const SlabGeometry& geometry)
    : Slab(geometry, (geometry.check(), memory_of_this_process(geometry.total_bytes())), {}) {
  control_->slots.store(geometry_.slots, std::memory_order_relaxed);
}

Slab::Slab(const SlabGeometry& geometry, int fd, int64_t offset, UniqueFd claim)
    : Slab(geometry, SharedMapping(fd, offset, geometry.total_bytes(), sizeof(Control)),
           std::move(claim)) {}

Slab::Slab(const SlabGeometry& geometry, SharedMapping memory, UniqueFd claim)
    : geometry_(geometry),
      stride_bytes_(geometry.stride_bytes()),
      claim_(std::move(claim)),
      memory_(std::move(memory)),
      control_(reinterpret_cast<Control*>(memory_.data())),  // fresh memory reads as zeros
      prepared_(static_cast<size_t>(memory_.size() / kHugePageBytes)) {}

std::byte* Slab::slot_data(int64_t slot) const {
  return memory_.data() + kHugePageBytes + slot * stride_bytes_;
}

std::span<std::byte> Slab::memory(int64_t slots) const {
  return {slot_data(0), static_cast<size_t>(align_up(slots * stride_bytes_, kHugePageBytes))};
}

int64_t Slab::hold_free_slot() {
  for (int64_t slot = 0; slot < geometry_.slots; ++slot) {
    auto& word = control_->words[slot];
    uint64_t seen = word.load(std::memory_order_relaxed);
    if ((seen & kInUse) != 0) continue;
    if (word.compare_exchange_strong(seen, seen + kOneGeneration + kTaken,
                                     std::memory_order_acquire, std::memory_order_relaxed)) {
      return slot;
    }
  }
  return -1;
}

uint64_t Slab::let_go(int64_t slot, uint64_t amount) {
  const uint64_t before = control_->words[slot].fetch_sub(amount, std::memory_order_acq_rel);
  if (((before - amount) & kInUse) == 0) {
    // Sequentially consistent on both sides: either the waiter sees the new count, or we see the
    // waiter.
    control_->releases.fetch_add(1);
    if (control_->waiters.load() > 0) futex_wake_all(control_->releases);
  }
  return before;
}

void Slab::release(int64_t slot) { let_go(slot, kTaken); }

void Slab::lend(int64_t slot) {
  control_->words[slot].fetch_add(kLent - kTaken, std::memory_order_relaxed);
  control_->lent.fetch_add(1, std::memory_order_relaxed);
}

void Slab::release_lent(int64_t slot) {
  control_->lent.fetch_sub(1, std::memory_order_relaxed);
  let_go(slot, kLent);
}

bool Slab::send(int64_t slot) {
  auto& word = control_->words[slot];
  uint64_t seen = word.load(std::memory_order_relaxed);
  do {
    if ((seen & kHandles) == kHandles) return false;
  } while (!word.compare_exchange_weak(seen, seen + kOneHandle, std::memory_order_release,
                                       std::memory_order_relaxed));
  return true;
}

bool Slab::receive(int64_t slot, uint32_t generation) {
  auto& word = control_->words[slot];
  uint64_t seen = word.load(std::memory_order_relaxed);
  do {
    if (generation_of(seen) != generation || (seen & kHandles) == 0) return false;
    if ((seen & kViews) == kViews) return false;
  } while (!word.compare_exchange_weak(seen, seen - kOneHandle + kOneView,
                                       std::memory_order_acquire, std::memory_order_relaxed));
  if ((seen & kViews) == 0) control_->received.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Slab::release_received(int64_t slot) {
  const uint64_t before = let_go(slot, kOneView);
  if ((before & kViews) == kOneView) control_->received.fetch_sub(1, std::memory_order_relaxed);
}

bool Slab::reads_may_be_in_flight(Clock::time_point now) {
  const auto words = std::span(control_->words);
  const bool taken = std::any_of(words.begin(), words.end(),
                                 [](const auto& word) { return (word.load() & kTaken) != 0; });
  if (!taken) return false;
  const int64_t now_ns = std::chrono::nanoseconds(now.time_since_epoch()).count();
  int64_t since_ns = control_->rests_since_ns.load();
  if (since_ns <= 0 || since_ns > now_ns) {
    since_ns = now_ns;
    control_->rests_since_ns.store(now_ns);
  }
  return now_ns - since_ns < nanoseconds(kRestAfterDeath).count();
}

int64_t Slab::reclaim() {
  control_->rests_since_ns.store(0);
  control_->slots.store(geometry_.slots, std::memory_order_relaxed);
  control_->lent.store(0, std::memory_order_relaxed);
  control_->waiters.store(0);
  int64_t received = 0;
  for (auto& word : std::span(control_->words)) {
    const uint64_t before = word.fetch_and(~(kTaken | kLent | kHandles));
    received += (before & kViews) != 0 ? 1 : 0;
  }
  return received;
}

uint32_t Slab::generation(int64_t slot) const {
  return generation_of(control_->words[slot].load(std::memory_order_relaxed));
}

int64_t Slab::held_slots() const {
  int64_t held = 0;
  for (int64_t slot = 0; slot < geometry_.slots; ++slot) {
    held += (control_->words[slot].load(std::memory_order_relaxed) & kInUse) != 0 ? 1 : 0;
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
    const bool huge = memory_.prepare_huge_page((page + 1) * kHugePageBytes);
    (huge ? huge_pages_ : small_pages_).fetch_add(1, std::memory_order_relaxed);
    prepared_[static_cast<size_t>(page)] = true;
  }
}

}  // namespace s3io
