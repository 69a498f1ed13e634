// A lease on aligned memory: a slot of a BufferPool, or memory of its own.
//
// Phases of a pooled buffer: taken (one AlignedBuf owns it) -> filled by reads -> either given back
// when the AlignedBuf dies, or detached: then a tensor owns it, and `free_detached` gives it back
// when the last view of that tensor dies. Move-only. One thread at a time.
//
// Note: forked children. A child inherits copies of its parent's buffers, over the same shared slot
// words. Giving one back acts only in the process that took it, so a child that drops its copy
// never frees what the parent still holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "memory/shared_block.h"

namespace s3io {

class PoolState;

class AlignedBuf {
 public:
  AlignedBuf() = default;
  AlignedBuf(AlignedBuf&& other) noexcept;
  AlignedBuf& operator=(AlignedBuf&& other) noexcept;
  AlignedBuf(const AlignedBuf&) = delete;
  AlignedBuf& operator=(const AlignedBuf&) = delete;
  ~AlignedBuf();

  // Memory of its own, outside any pool. Throws Error(out_of_memory).
  static AlignedBuf allocate(int64_t size_bytes, int64_t alignment);
  // The same where another process is to have it, too (`shared_by`): a SharedBlock. But memory like
  // any other where that is not to be had, or where there are SharedBlock::kMost: it is then copied
  // on its way.
  static AlignedBuf allocate_shared(int64_t size_bytes, int64_t alignment);

  bool valid() const { return data_ != nullptr; }
  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  // Number of the slot within its pool, -1 for memory of its own.
  int64_t slot() const { return slot_; }
  const PoolState* pool() const { return pool_.get(); }

  // Hands ownership to a C callback: call `free_detached` with the result exactly once. Does not
  // allocate for pooled buffers.
  void* detach();
  static void free_detached(void* owner);
  // The block that such an owner has; null where its memory is no SharedBlock.
  static const SharedBlock* shared_by(const void* owner);

 private:
  friend class BufferPool;
  AlignedBuf(std::shared_ptr<PoolState> pool, int64_t slot, std::byte* data, int64_t size);
  void give_back();

  std::shared_ptr<PoolState> pool_;
  std::unique_ptr<SharedBlock> block_;
  int64_t slot_ = -1;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace s3io
