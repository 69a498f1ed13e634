// What crosses from worker processes: handles, and the memory that they share. A damaged handle is
// refused or gives bytes of the slot that it names; damaged memory gives wrong counts, and nothing
// worse.
#include <algorithm>
#include <deque>

#include "base/align.h"
#include "base/error.h"
#include "engine/input.h"
#include "memory/buffer_pool.h"
#include "memory/slab_handover.h"

namespace s3io::fuzz {
namespace {

constexpr int64_t kSlots = 5;
constexpr int64_t kSlotBytes = 192;

struct Lent {
  void* owner;
  std::byte* data;
};

class Session {
 public:
  explicit Session(Input& input)
      : input_(input),
        arena_(std::make_shared<SlabArena>(SlabGeometry{kSlots, kSlotBytes, 64})),
        consumer_(arena_) {}
  ~Session() {
    for (const Received& one : received_) free_received(one.owner);
    for (const Lent& one : lent_) AlignedBuf::free_detached(one.owner);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void run() {
    for (int step = 0; step < 60 && !input_.empty(); ++step) {
      try {
        act(input_.between(0, 8));
      } catch (const Error&) {
      }
    }
  }

 private:
  void act(int64_t action) {
    if (action == 0) return claim();
    if (action == 1) return lend();
    if (action == 2) return send_one();
    if (action == 3) return receive_sent();
    if (action == 4) return receive_damaged();
    if (action == 5) return let_go();
    if (action == 6) return look();
    if (action == 7) return damage_memory();
    if (!lent_.empty()) {
      AlignedBuf::free_detached(lent_.front().owner);
      lent_.pop_front();
    }
  }

  void claim() {
    if (pools_.size() > 3) return;
    auto claim = arena_->claim(input_.number(), input_.number());
    if (!claim) return;
    announce(arena_->id(), claim->segment, claim->slab);
    pools_.emplace_back(BufferPoolConfig{kSlots, kSlotBytes, 64}, claim->slab);
  }

  void lend() {
    if (pools_.empty()) return;
    auto buffer = pools_[static_cast<size_t>(input_.between(0, std::ssize(pools_) - 1))].try_take(
        input_.between(1, kSlotBytes));
    if (!buffer) return;
    std::byte* data = buffer->data();
    std::fill_n(data, kSlotBytes, static_cast<std::byte>(++fill_));
    lent_.push_back({buffer->detach(), data});
  }

  void send_one() {
    if (lent_.empty()) return;
    const Lent& one = lent_[static_cast<size_t>(input_.between(0, std::ssize(lent_) - 1))];
    const int64_t offset = input_.between(0, kSlotBytes - 1);
    const auto handle = send(one.data + offset, input_.between(0, kSlotBytes - offset));
    if (handle) sent_.push_back({*handle, one.data[0]});
  }

  void receive_sent() {
    if (sent_.empty()) return;
    const auto [handle, filled] = sent_.front();
    sent_.pop_front();
    const Received found = consumer_.receive(handle);
    received_.push_back(found);
    for (int64_t at = 0; at < handle.length; ++at) {
      require(is_damaged_ || found.data[at] == filled);
    }
  }

  void receive_damaged() {
    SlotHandle handle = sent_.empty() ? SlotHandle{} : sent_.front().first;
    switch (input_.between(0, 6)) {
      case 0:
        handle.arena = input_.bits();
        break;
      case 1:
        handle.segment = static_cast<uint32_t>(input_.number());
        break;
      case 2:
        handle.slot = static_cast<uint32_t>(input_.number());
        break;
      case 3:
        handle.generation = static_cast<uint32_t>(input_.number());
        break;
      case 4:
        handle.offset = input_.number();
        break;
      case 5:
        handle.length = input_.number();
        break;
      default:
        handle.arena = arena_->id();
        handle.segment = static_cast<uint32_t>(input_.between(0, 3));
    }
    const Received found = consumer_.receive(handle);
    received_.push_back(found);
    require(handle.offset >= 0 && handle.length >= 0 &&
            handle.offset + handle.length <= kSlotBytes);
    for (int64_t at = 0; at < handle.length; ++at) sum_ += static_cast<int64_t>(found.data[at]);
  }

  void let_go() {
    if (received_.empty()) return;
    free_received(received_.front().owner);
    received_.pop_front();
  }

  // As the main process does before it page-locks segments, and for its statistics.
  void look() {
    for (const auto& slab : arena_->attached()) {
      const int64_t slots = slab->slots_in_use();
      for (int64_t slot = 0; slot < slots; ++slot) slab->prepare(slot, slab->slot_bytes());
      require(slab->memory(slots).size() <= static_cast<size_t>(arena_->geometry().total_bytes()));
      sum_ += slab->held_slots() + slab->received_slots();
    }
    for (BufferPool& pool : pools_) sum_ += pool.can_lend() ? pool.stats().in_use : pool.lent();
  }

  // As a worker does whose memory is overwritten.
  void damage_memory() {
    is_damaged_ = true;
    const int64_t segment = input_.between(0, 2);
    const SharedMapping control(arena_->fd(),
                                kHugePageBytes + segment * arena_->geometry().total_bytes(), 64);
    const int64_t word = input_.between(0, 11);
    reinterpret_cast<uint64_t*>(control.data())[word] = input_.bits();
  }

  Input& input_;
  std::shared_ptr<SlabArena> arena_;
  Consumer consumer_;
  std::vector<BufferPool> pools_;
  std::deque<Lent> lent_;
  std::deque<std::pair<SlotHandle, std::byte>> sent_;
  std::deque<Received> received_;
  uint8_t fill_ = 0;
  bool is_damaged_ = false;
  int64_t sum_ = 0;
};

void read(Input& input) { Session(input).run(); }

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
