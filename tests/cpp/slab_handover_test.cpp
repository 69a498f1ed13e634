// Slots on their way between processes: claims, handles, stale handles, scarcity, gates.
#include "memory/slab_handover.h"

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <limits>
#include <thread>

#include "base/align.h"
#include "leak_check.h"
#include "memory/buffer_pool.h"
#include "testing.h"

namespace s3io::testing::slab_handover_test {

constexpr SlabGeometry kGeometry{8, 4096, 4096};

// A producer and a consumer in one process.
struct Both {
  explicit Both(const SlabGeometry& geometry = kGeometry)
      : arena(std::make_shared<SlabArena>(geometry)), consumer(arena) {
    claim = arena->claim(0, geometry.slots);
    announce(arena->id(), claim->segment, claim->slab);
  }

  // A lent slot that holds `value` in every byte.
  int64_t lent(int value) {
    const int64_t slot = claim->slab->hold_free_slot();
    REQUIRE(slot >= 0);
    std::memset(claim->slab->slot_data(slot), value, 4096);
    claim->slab->lend(slot);
    return slot;
  }
  SlotHandle sent(int64_t slot) {
    const auto handle = send(claim->slab->slot_data(slot) + 8, 100);
    REQUIRE(handle);
    return *handle;
  }

  std::shared_ptr<SlabArena> arena;
  Consumer consumer;
  std::optional<SlabArena::Claim> claim;
};

TEST_CASE("a handle becomes a view of the same bytes, and the slot is free after the last view") {
  const LeakCheck leaks;
  Both both;
  const int64_t slot = both.lent(7);
  const SlotHandle first = both.sent(slot);
  const SlotHandle second = both.sent(slot);
  both.claim->slab->release_lent(slot);
  CHECK(both.claim->slab->held_slots() == 1);  // on its way
  const Received one = both.consumer.receive(first);
  const Received two = both.consumer.receive(second);
  CHECK(one.data == two.data);
  CHECK(equals(one.data, Bytes(100, std::byte{7})));
  CHECK(one.data != both.claim->slab->slot_data(slot) + 8);  // another mapping
  one.data[0] = std::byte{9};
  CHECK(both.claim->slab->slot_data(slot)[8] == std::byte{9});  // of the same memory
  free_received(one.owner);
  CHECK(both.claim->slab->held_slots() == 1);
  free_received(two.owner);
  CHECK(both.claim->slab->held_slots() == 0);
  CHECK(both.claim->slab->received_slots() == 0);
}

TEST_CASE("a handle that is taken back keeps its slot no longer, and others of it do") {
  const LeakCheck leaks;
  Both both;
  const int64_t slot = both.lent(7);
  const SlotHandle first = both.sent(slot);
  const SlotHandle second = both.sent(slot);
  both.claim->slab->release_lent(slot);
  take_back(first);
  CHECK(both.claim->slab->held_slots() == 1);  // by the second one
  const Received view = both.consumer.receive(second);
  CHECK(equals(view.data, Bytes(100, std::byte{7})));
  take_back(second);  // it is the consumer's by now
  CHECK(both.claim->slab->held_slots() == 1);
  free_received(view.owner);
  CHECK(both.claim->slab->held_slots() == 0);
  SlotHandle foreign = first;
  foreign.segment = 99;
  take_back(foreign);
  foreign = first;
  foreign.slot = 1 << 20;
  take_back(foreign);
}

TEST_CASE("a handle is good once, and never for another batch") {
  Both both;
  const int64_t slot = both.lent(1);
  const SlotHandle handle = both.sent(slot);
  both.claim->slab->release_lent(slot);
  free_received(both.consumer.receive(handle).owner);
  CHECK(caught([&] { both.consumer.receive(handle); }).kind == ErrorKind::data);
  CHECK(both.lent(2) == slot);
  const SlotHandle newer = both.sent(slot);
  CHECK(caught([&] { both.consumer.receive(handle); }).kind == ErrorKind::data);
  free_received(both.consumer.receive(newer).owner);
  SlotHandle wrong = newer;
  for (const auto& change : std::initializer_list<void (*)(SlotHandle&)>{
           [](SlotHandle& one) { one.arena ^= 1; }, [](SlotHandle& one) { one.segment = 1 << 20; },
           [](SlotHandle& one) { one.slot = 8; }, [](SlotHandle& one) { one.offset = -1; },
           [](SlotHandle& one) { one.length = 4097; },
           [](SlotHandle& one) { one.offset = INT64_MAX; }}) {
    wrong = newer;
    change(wrong);
    CHECK(caught([&] { both.consumer.receive(wrong); }).kind == ErrorKind::data);
  }
}

TEST_CASE("what lies in no slot, or across two, is not sent") {
  Both both;
  const int64_t slot = both.lent(1);
  std::byte elsewhere[16];
  CHECK_FALSE(send(elsewhere, 16));
  CHECK_FALSE(send(both.claim->slab->slot_data(slot) + 4000, 97));
  CHECK(send(both.claim->slab->slot_data(slot) + 4000, 96));
}

TEST_CASE("a segment is claimed once, and again when its producer is gone") {
  const LeakCheck leaks;
  SlabArena arena(kGeometry);
  auto first = arena.claim(3, 100);
  REQUIRE(first);
  CHECK(first->segment == 3);
  CHECK(first->slab->slots() == 8);  // no more than there is room for
  auto second = arena.claim(3, 2);
  REQUIRE(second);
  CHECK(second->segment == 4);
  first.reset();
  CHECK(arena.claim(3, 2)->segment == 3);
}

TEST_CASE("the next producer frees what a killed one held, but not what the consumer views") {
  const LeakCheck leaks;
  auto arena = std::make_shared<SlabArena>(kGeometry);
  Consumer consumer(arena);
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto claim = arena->claim(0, 8);
    announce(arena->id(), claim->segment, claim->slab);
    for (int slot = 0; slot < 4; ++slot) {  // one stays taken, one lent, two are sent
      claim->slab->hold_free_slot();
      if (slot > 0) claim->slab->lend(slot);
      if (slot < 2) continue;
      const auto handle = send(claim->slab->slot_data(slot), 16);
      const auto size = static_cast<ssize_t>(sizeof(*handle));
      if (::write(pipe_ends[1], &*handle, sizeof(*handle)) != size) ::_exit(1);
    }
    ::raise(SIGKILL);
  }
  SlotHandle handles[2];
  for (SlotHandle& handle : handles) {
    REQUIRE(::read(pipe_ends[0], &handle, sizeof(handle)) == sizeof(handle));
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  const Received view = consumer.receive(handles[0]);
  // The device may still write into the slot that was taken: another segment at first.
  const Clock::time_point now = Clock::now();
  CHECK(arena->claim(0, 8, now)->segment == 1);
  CHECK(arena->claim(0, 8, now + Slab::kRestAfterDeath - milliseconds(1))->segment == 1);
  const auto claim = arena->claim(0, 8, now + Slab::kRestAfterDeath);
  REQUIRE(claim);
  CHECK(claim->segment == 0);
  CHECK(claim->slab->held_slots() == 1);
  CHECK(claim->slab->received_slots() == 1);
  CHECK(caught([&] { consumer.receive(handles[1]); }).kind == ErrorKind::data);
  free_received(view.owner);
  CHECK(claim->slab->held_slots() == 0);
}

TEST_CASE("a producer that ends between two batches leaves its segment to the next one at once") {
  SlabArena arena(kGeometry);
  auto claim = arena.claim(0, 8);
  const int64_t lent = claim->slab->hold_free_slot();
  claim->slab->lend(lent);  // tensors that nobody dropped: no device writes there
  claim.reset();
  claim = arena.claim(0, 8);
  CHECK(claim->segment == 0);
  CHECK(claim->slab->held_slots() == 0);
}

TEST_CASE(
    "when the consumer would hold nearly all slots, bytes are copied out and the slot is let go") {
  for (const int64_t slots : {3, 4, 8}) {
    CAPTURE(slots);
    Both both({slots, 4096, 4096});
    const int64_t reserve = slots >= 4 ? 2 : 1;
    std::vector<Received> held;
    for (int64_t batch = 0; batch < 3 * slots; ++batch) {
      const int64_t slot = both.lent(static_cast<int>(batch));
      const SlotHandle handle = both.sent(slot);
      both.claim->slab->release_lent(slot);
      held.push_back(both.consumer.receive(handle));
      CHECK(both.claim->slab->received_slots() <= slots - reserve);
    }
    for (int64_t batch = 0; batch < 3 * slots; ++batch) {
      const Received& one = held[static_cast<size_t>(batch)];
      CHECK(equals(one.data, Bytes(100, static_cast<std::byte>(batch))));
      free_received(one.owner);
    }
    CHECK(both.consumer.counters().copied_tensors == 3 * slots - (slots - reserve));
    CHECK(both.claim->slab->held_slots() == 0);
  }
}

struct FakeGate final : ReleaseGate {
  struct FakeMark final : Mark {
    explicit FakeMark(std::atomic<bool>& gate_open) : open(gate_open) {}
    bool passed() noexcept override { return open.load(); }
    std::atomic<bool>& open;
  };
  std::unique_ptr<Mark> mark() noexcept override { return std::make_unique<FakeMark>(open); }
  std::atomic<bool> open{false};
};

TEST_CASE("behind a gate a slot is let go when the device is past the mark, not before") {
  Both both;
  const auto gate = std::make_shared<FakeGate>();
  both.consumer.set_gate(gate);
  const int64_t slot = both.lent(1);
  const SlotHandle handle = both.sent(slot);
  both.claim->slab->release_lent(slot);
  free_received(both.consumer.receive(handle).owner);
  std::this_thread::sleep_for(milliseconds(20));
  CHECK(both.claim->slab->held_slots() == 1);
  CHECK(pending_releases() == 1);
  gate->open = true;
  CHECK(holds_soon([&] { return both.claim->slab->held_slots() == 0; }));
  CHECK(holds_soon([] { return pending_releases() == 0; }));
  std::this_thread::sleep_for(2 * kWaitSlice);  // its thread ends: the sanitizers count threads
}

TEST_CASE("counts that another process has damaged are never more than there are slots") {
  Both both;
  const int64_t segment = both.claim->segment;
  const SharedMapping control(both.arena->fd(), kHugePageBytes + segment * kGeometry.total_bytes(),
                              64);
  for (const int64_t damaged : {std::numeric_limits<int64_t>::max(), int64_t{-1}}) {
    std::fill_n(reinterpret_cast<int64_t*>(control.data()), 5, damaged);
    const Slab& slab = *both.claim->slab;
    for (const int64_t count : {slab.slots_in_use(), slab.lent_slots(), slab.received_slots()}) {
      CHECK(count >= 0);
      CHECK(count <= kGeometry.slots);
    }
    const auto now = Clock::now();
    CHECK_FALSE(both.claim->slab->reads_may_be_in_flight(now));
    const int64_t slot = both.lent(1);
    both.claim->slab->hold_free_slot();
    CHECK(both.claim->slab->reads_may_be_in_flight(now));
    both.claim->slab->reclaim();
    CHECK(slot >= 0);
  }
}

TEST_CASE("an arena is adopted with the geometry of its memory only") {
  const SlabArena arena(kGeometry);
  const auto adopt = [&](const SlabGeometry& geometry) {
    return caught([&] { SlabArena(geometry, UniqueFd(::dup(arena.fd())), arena.id()); }).kind;
  };
  CHECK(adopt({-1, 4096, 4096}) == ErrorKind::config);
  CHECK(adopt({8, int64_t{1} << 62, 4096}) == ErrorKind::config);
  CHECK(adopt({8, 4096, 3}) == ErrorKind::config);
}

}  // namespace s3io::testing::slab_handover_test
