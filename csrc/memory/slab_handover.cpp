#include "memory/slab_handover.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "base/align.h"
#include "base/error.h"
#include "base/fork_owned.h"
#include "base/limits.h"

namespace s3io {
namespace {

struct Announced {
  uint64_t arena = 0;
  uint32_t segment = 0;
  std::span<std::byte> memory;
  std::weak_ptr<Slab> slab;
};

struct Announcements {
  std::mutex mutex;
  std::vector<Announced> slabs;
};

// Never destroyed: threads may send while static destructors run.
Announcements& announcements() {
  static auto& known = *new Announcements;
  return known;
}

// What keeps received bytes alive: a view of a slot, or an allocation.
struct Owner {
  std::shared_ptr<Slab> slab;
  int64_t slot = -1;
  const HomeProcess home = {};
  std::shared_ptr<ReleaseGate> gate;
  std::byte* allocation = nullptr;
};

Received allocate(int64_t length) {
  const auto rounded = static_cast<size_t>(align_up(std::max<int64_t>(length, 1), kCacheLineBytes));
  auto owner = std::make_unique<Owner>();
  owner->allocation = static_cast<std::byte*>(std::aligned_alloc(kCacheLineBytes, rounded));
  if (owner->allocation == nullptr) {
    throw Error(ErrorKind::out_of_memory,
                message("cannot allocate ", length, " bytes to copy a batch out of the pool",
                        limit_hint(ENOMEM), "; keep fewer batches"));
  }
  std::byte* data = owner->allocation;
  return {data, owner.release()};
}

[[noreturn]] void throw_stale(const SlotHandle& handle) {
  throw Error(
      ErrorKind::data,
      message("a batch from a worker is gone: slot ", handle.slot, " of segment ", handle.segment,
              " has been reused since; the worker died, or the batch was unpickled twice"));
}

bool is_scarce(const Slab& slab) {
  const int64_t slots = slab.slots_in_use();
  const int64_t reserve = slots >= 4 ? 2 : 1;  // to read into, while the batches are on their way
  return slab.received_slots() > slots - reserve ||
         slab.received_slots() + slab.lent_slots() > slots - 1;
}

}  // namespace

void announce(uint64_t arena, int64_t segment, const std::shared_ptr<Slab>& slab) {
  Announcements& known = announcements();
  const std::lock_guard lock(known.mutex);
  std::erase_if(known.slabs, [](const Announced& one) { return one.slab.expired(); });
  known.slabs.push_back({arena, static_cast<uint32_t>(segment), slab->memory(slab->slots()), slab});
}

std::optional<SlotHandle> send(const std::byte* begin, int64_t length) {
  Announcements& known = announcements();
  const std::lock_guard lock(known.mutex);
  for (const Announced& one : known.slabs) {
    const std::byte* first = one.memory.data();
    if (begin < first || begin >= first + one.memory.size()) continue;
    const std::shared_ptr<Slab> slab = one.slab.lock();
    if (slab == nullptr) continue;  // unmapped since, and something else mapped there
    const int64_t stride = slab->slots() > 1 ? slab->slot_data(1) - slab->slot_data(0)
                                             : static_cast<int64_t>(one.memory.size());
    const int64_t slot = (begin - first) / stride;
    const int64_t offset = (begin - first) % stride;
    if (slot >= slab->slots() || offset + length > slab->slot_bytes()) return std::nullopt;
    if (!slab->send(slot)) return std::nullopt;
    return SlotHandle{one.arena, one.segment, static_cast<uint32_t>(slot), slab->generation(slot),
                      offset,    length};
  }
  return std::nullopt;
}

void take_back(const SlotHandle& handle) {
  Announcements& known = announcements();
  const std::lock_guard lock(known.mutex);
  for (const Announced& one : known.slabs) {
    if (one.arena != handle.arena || one.segment != handle.segment) continue;
    const std::shared_ptr<Slab> slab = one.slab.lock();
    if (slab != nullptr && handle.slot < slab->slots() &&
        slab->receive(handle.slot, handle.generation)) {
      slab->release_received(handle.slot);
      return;
    }
  }
}

void free_received(void* opaque) {
  const std::unique_ptr<Owner> owner(static_cast<Owner*>(opaque));
  if (owner->slab == nullptr) {
    std::free(owner->allocation);  // a forked child frees its own copy
    return;
  }
  if (!owner->home.is_here()) return;
  if (owner->gate != nullptr) {
    if (auto mark = owner->gate->mark()) {
      release_after(std::move(mark),
                    [slab = owner->slab, slot = owner->slot] { slab->release_received(slot); });
      return;
    }
  }
  owner->slab->release_received(owner->slot);
}

void Consumer::set_gate(std::shared_ptr<ReleaseGate> gate) {
  const std::lock_guard lock(mutex_);
  gate_ = std::move(gate);
}

std::shared_ptr<ReleaseGate> Consumer::gate() {
  const std::lock_guard lock(mutex_);
  return gate_;
}

Received Consumer::receive(const SlotHandle& handle) {
  const auto count = [](std::atomic<int64_t>& counter, int64_t amount) {
    counter.fetch_add(amount, std::memory_order_relaxed);
  };
  if (handle.arena != arena_->id() || !arena_->has(handle)) {
    count(counters_.stale_handles, 1);
    throw_stale(handle);
  }
  std::shared_ptr<Slab> slab;
  try {
    slab = arena_->attach(handle.segment);
  } catch (const Error&) {
    Received received = copy_unmapped(handle);
    count(counters_.unmapped_tensors, 1);
    return received;
  }
  auto owner = std::make_unique<Owner>();
  if (!slab->receive(handle.slot, handle.generation)) {
    count(counters_.stale_handles, 1);
    throw_stale(handle);
  }
  owner->slab = slab;
  owner->slot = handle.slot;
  Received view{slab->slot_data(handle.slot) + handle.offset, owner.release()};
  count(counters_.tensors, 1);
  count(counters_.bytes, handle.length);
  if (!is_scarce(*slab)) {
    static_cast<Owner*>(view.owner)->gate = gate();
    return view;
  }
  // Nobody has seen the view yet, so no device reads it: it is let go without the gate.
  const std::unique_ptr<void, decltype(&free_received)> let_go(view.owner, &free_received);
  const Received copy = allocate(handle.length);
  std::memcpy(copy.data, view.data, static_cast<size_t>(handle.length));
  if (counters_.copied_tensors.fetch_add(1, std::memory_order_relaxed) == 0) {
    count_handover_event();
  }
  count(counters_.copied_bytes, handle.length);
  return copy;
}

Received Consumer::copy_unmapped(const SlotHandle& handle) {
  const std::unique_ptr<Slab> words = arena_->attach_words(handle.segment);
  if (!words->receive(handle.slot, handle.generation)) throw_stale(handle);
  Received copy{};
  bool complete = false;
  try {
    copy = allocate(handle.length);
    complete = arena_->read(handle, copy.data);
  } catch (const Error&) {
    words->release_received(handle.slot);
    throw;
  }
  words->release_received(handle.slot);
  if (complete) return copy;
  free_received(copy.owner);
  throw Error(ErrorKind::out_of_memory,
              message("cannot map, nor read, the memory of a worker", limit_hint(ENOMEM)));
}

}  // namespace s3io
