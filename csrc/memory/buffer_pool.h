// A bounded set of reusable aligned buffers, backed by huge pages where the kernel gives them.
//
// `take` hands out a lease (AlignedBuf); `give`, or the lease's destructor, returns it. The pool's
// memory lives until the last lease and the last tensor over it are gone, whatever happens to the
// BufferPool itself. Thread-safe. Belongs to the process that made it: a forked child cannot take.
//
// A worker process makes its pool over a segment of its parent's arena (slab_arena.h): the parent
// can then view the buffers, too.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/fork_owned.h"
#include "memory/aligned_buf.h"
#include "memory/slab.h"

namespace s3io {

struct BufferPoolConfig {
  int64_t capacity = 32;                    // buffers
  int64_t buffer_size = int64_t{64} << 20;  // bytes each
  int64_t alignment = 4096;                 // bytes, a power of two
};

struct BufferPoolStats {
  int64_t taken = 0;       // leases handed out, oversize ones included
  int64_t waited = 0;      // leases that had to wait for a free buffer
  int64_t wait_ns = 0;     // time spent in those waits
  int64_t in_use = 0;      // buffers held now
  int64_t peak = 0;        // most buffers held at once
  int64_t oversize = 0;    // requests larger than buffer_size, served by an allocation of their own
  int64_t huge_pages = 0;  // 2 MiB units of the pool backed by a huge page
  int64_t small_pages = 0;  // 2 MiB units of the pool backed by 4 KiB pages
};

// What leases, detached buffers and the pool share. Not for direct use.
class PoolState {
 public:
  PoolState(const BufferPoolConfig& config, std::shared_ptr<Slab> slab, bool shared);

  struct Detached {  // one per slot, made in advance: detaching must not allocate
    std::shared_ptr<PoolState> pool;
    int64_t slot = -1;
    std::byte* allocation = nullptr;
    std::unique_ptr<SharedBlock> block = nullptr;
  };

  const BufferPoolConfig config;
  const HomeProcess home = {};  // no other process takes or gives
  const std::shared_ptr<Slab> slab;
  const bool shared;  // another process receives the slots
  std::vector<Detached> detached;
  std::atomic<int64_t> taken{0}, waited{0}, wait_ns{0}, in_use{0}, peak{0}, oversize{0};

  void release(int64_t slot);
  void release_lent(int64_t slot);
};

class BufferPool {
 public:
  // Throws Error(config) for nonsense and Error(out_of_memory). Uses no physical memory yet.
  explicit BufferPool(const BufferPoolConfig& config);
  // A pool in shared memory; the slab says how many buffers it has.
  BufferPool(const BufferPoolConfig& config, std::shared_ptr<Slab> slab);

  const BufferPoolConfig& config() const { return state_->config; }

  // A buffer of at least `size_bytes`, or nothing when all are in use. A size above buffer_size
  // gets an allocation of its own, counted as oversize.
  std::optional<AlignedBuf> try_take(int64_t size_bytes);
  // As try_take, but waits up to `timeout_s` seconds, then throws Error(pool_timeout).
  // `on_wait` is called every few milliseconds while waiting and may throw to give up.
  AlignedBuf take(int64_t size_bytes, double timeout_s, const std::function<void()>& on_wait = {});
  // Returns a lease early. Throws Error(config) if it is not one of this pool.
  void give(AlignedBuf&& buffer);

  // Sleeps until a buffer may have become free, `interrupt` is called, or `timeout` is over.
  // `seen` is what `release_count` said before the caller found no buffer.
  uint32_t release_count() const { return state_->slab->release_count(); }
  void wait_for_release(uint32_t seen, nanoseconds timeout) {
    state_->slab->wait_for_release(seen, timeout);
  }
  void interrupt() { state_->slab->wake_waiters(); }

  // Buffers that tensors hold, in any process, and whether one more may be lent to a tensor: a
  // reserve stays, so that whoever reads into this pool always has some to read into.
  int64_t lent() const { return state_->slab->lent_slots() + state_->slab->received_slots(); }
  bool can_lend() const;
  bool is_shared() const { return state_->shared; }
  const std::shared_ptr<Slab>& slab() const { return state_->slab; }
  BufferPoolStats stats() const;

 private:
  std::shared_ptr<PoolState> state_;
};

}  // namespace s3io
