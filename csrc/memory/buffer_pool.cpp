#include "memory/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/align.h"
#include "base/error.h"
#include "base/limits.h"

namespace s3io {

PoolState::PoolState(const BufferPoolConfig& pool_config, std::shared_ptr<Slab> pool_slab,
                     bool is_shared)
    : config(pool_config),
      slab(std::move(pool_slab)),
      shared(is_shared),
      detached(static_cast<size_t>(pool_config.capacity)) {}

void PoolState::release(int64_t slot) {
  if (!home.is_here()) return;
  in_use.fetch_sub(1, std::memory_order_relaxed);
  slab->release(slot);
}

void PoolState::release_lent(int64_t slot) {
  if (!home.is_here()) return;
  in_use.fetch_sub(1, std::memory_order_relaxed);
  slab->release_lent(slot);
}

AlignedBuf::AlignedBuf(std::shared_ptr<PoolState> pool, int64_t slot, std::byte* data, int64_t size)
    : pool_(std::move(pool)), slot_(slot), data_(data), size_(size) {}

AlignedBuf::AlignedBuf(AlignedBuf&& other) noexcept
    : pool_(std::move(other.pool_)),
      block_(std::move(other.block_)),
      slot_(std::exchange(other.slot_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

AlignedBuf& AlignedBuf::operator=(AlignedBuf&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(block_, other.block_);
  std::swap(slot_, other.slot_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuf::~AlignedBuf() { give_back(); }

AlignedBuf AlignedBuf::allocate(int64_t size_bytes, int64_t alignment) {
  constexpr int64_t kMost = int64_t{1}
                            << 46;  // more than any machine has: rounding cannot overflow
  if (size_bytes > kMost) {
    throw Error(ErrorKind::out_of_memory, message("cannot allocate a buffer of ", size_bytes,
                                                  " bytes; ask for less at once"));
  }
  const bool large = size_bytes >= kHugePageBytes;
  const int64_t boundary = std::max(alignment, large ? kHugePageBytes : kPageBytes);
  const auto rounded = static_cast<size_t>(align_up(std::max<int64_t>(size_bytes, 1), boundary));
  auto* data = static_cast<std::byte*>(std::aligned_alloc(static_cast<size_t>(boundary), rounded));
  if (data == nullptr) {
    throw Error(ErrorKind::out_of_memory,
                message("cannot allocate a buffer of ", rounded, " bytes", limit_hint(ENOMEM),
                        "; lower batch_size, or ask for less at once"));
  }
  if (large) ::madvise(data, rounded, MADV_HUGEPAGE);  // advice: nothing to do where it is refused
  return {nullptr, -1, data, size_bytes};
}

AlignedBuf AlignedBuf::allocate_shared(int64_t size_bytes, int64_t alignment) {
  const bool may_share = SharedBlock::count() < SharedBlock::kMost;
  if (size_bytes > 0 && alignment <= kHugePageBytes && may_share) {
    try {
      auto block = std::make_unique<SharedBlock>(size_bytes);
      AlignedBuf buffer(nullptr, -1, block->data(), size_bytes);
      buffer.block_ = std::move(block);
      return buffer;
    } catch (const Error&) {  // no descriptor, or not as much shared memory
    }
  }
  return allocate(size_bytes, alignment);
}

void AlignedBuf::give_back() {
  if (data_ == nullptr) return;
  if (pool_ != nullptr) {
    pool_->release(slot_);
  } else if (block_ == nullptr) {
    std::free(data_);
  }
  data_ = nullptr;
  block_.reset();
  pool_.reset();
}

void* AlignedBuf::detach() {
  PoolState::Detached* owner = nullptr;
  if (pool_ != nullptr) {
    owner = &pool_->detached[static_cast<size_t>(slot_)];
    pool_->slab->lend(slot_);
    owner->pool = std::move(pool_);
    owner->slot = slot_;
  } else {
    owner = new PoolState::Detached{nullptr, -1, data_, std::move(block_)};
  }
  data_ = nullptr;
  slot_ = -1;
  size_ = 0;
  return owner;
}

void AlignedBuf::free_detached(void* opaque) {
  auto* owner = static_cast<PoolState::Detached*>(opaque);
  if (owner->pool == nullptr) {
    // A forked child frees its own copy; of a block, its own mapping.
    if (owner->block == nullptr) std::free(owner->allocation);
    delete owner;
    return;
  }
  // The slot's record lies inside the pool: move the reference out before it can destroy the pool.
  const std::shared_ptr<PoolState> pool = std::move(owner->pool);
  pool->release_lent(owner->slot);
}

const SharedBlock* AlignedBuf::shared_by(const void* owner) {
  return static_cast<const PoolState::Detached*>(owner)->block.get();
}

BufferPool::BufferPool(const BufferPoolConfig& config)
    : state_(
          std::make_shared<PoolState>(config,
                                      std::make_shared<Slab>(SlabGeometry{
                                          config.capacity, config.buffer_size, config.alignment}),
                                      false)) {}

BufferPool::BufferPool(const BufferPoolConfig& config, std::shared_ptr<Slab> slab) {
  BufferPoolConfig actual = config;
  actual.capacity = slab->slots();
  state_ = std::make_shared<PoolState>(actual, std::move(slab), true);
}

std::optional<AlignedBuf> BufferPool::try_take(int64_t size_bytes) {
  PoolState& state = *state_;
  if (!state.home.is_here()) {
    throw Error(ErrorKind::config,
                "this buffer pool belongs to the parent process; make another one after "
                "fork");
  }
  if (size_bytes > state.config.buffer_size) {
    state.taken.fetch_add(1, std::memory_order_relaxed);
    state.oversize.fetch_add(1, std::memory_order_relaxed);
    return state.shared ? AlignedBuf::allocate_shared(size_bytes, state.config.alignment)
                        : AlignedBuf::allocate(size_bytes, state.config.alignment);
  }
  const int64_t slot = state.slab->hold_free_slot();
  if (slot < 0) return std::nullopt;
  const int64_t in_use = state.in_use.fetch_add(1, std::memory_order_relaxed) + 1;
  AlignedBuf lease(state_, slot, state.slab->slot_data(slot), state.config.buffer_size);
  state.slab->prepare(slot, size_bytes);  // may throw: the lease above then frees the slot
  state.taken.fetch_add(1, std::memory_order_relaxed);
  int64_t peak = state.peak.load(std::memory_order_relaxed);
  while (peak < in_use &&
         !state.peak.compare_exchange_weak(peak, in_use, std::memory_order_relaxed)) {
  }
  return lease;
}

AlignedBuf BufferPool::take(int64_t size_bytes, double timeout_s,
                            const std::function<void()>& on_wait) {
  uint32_t seen = release_count();
  if (auto lease = try_take(size_bytes)) return std::move(*lease);
  const Clock::time_point start = Clock::now();
  const Clock::time_point deadline = deadline_after(timeout_s);
  state_->waited.fetch_add(1, std::memory_order_relaxed);
  while (true) {
    const nanoseconds left = deadline - Clock::now();
    wait_for_release(seen, std::min<nanoseconds>(left, kWaitSlice));
    if (on_wait) on_wait();
    seen = release_count();
    if (auto lease = try_take(size_bytes)) {
      state_->wait_ns.fetch_add(nanoseconds_since(start), std::memory_order_relaxed);
      return std::move(*lease);
    }
    if (Clock::now() >= deadline) {
      throw Error(ErrorKind::pool_timeout,
                  message("no buffer became free within ", timeout_s, " s: all ",
                          state_->config.capacity, " are in use, ", lent(),
                          " of them by tensors; drop tensors earlier or raise "
                          "BufferPoolConfig.capacity (now ",
                          state_->config.capacity, ")"));
    }
  }
}

void BufferPool::give(AlignedBuf&& buffer) {
  if (buffer.pool() != state_.get()) {
    throw Error(ErrorKind::config, "this buffer was not taken from this pool, or was given before");
  }
  const AlignedBuf returned = std::move(buffer);
}

bool BufferPool::can_lend() const {
  const int64_t capacity = state_->config.capacity;
  // Of a shared pool the consumer keeps the reserve, when it receives (slab_handover.h).
  const int64_t reserve = capacity >= 4 && !state_->shared ? 2 : 1;
  return lent() < capacity - reserve;
}

BufferPoolStats BufferPool::stats() const {
  const PoolState& state = *state_;
  BufferPoolStats stats;
  stats.taken = state.taken.load();
  stats.waited = state.waited.load();
  stats.wait_ns = state.wait_ns.load();
  stats.in_use = state.in_use.load();
  stats.peak = state.peak.load();
  stats.oversize = state.oversize.load();
  stats.huge_pages = state.slab->huge_pages();
  stats.small_pages = state.slab->small_pages();
  return stats;
}

}  // namespace s3io
