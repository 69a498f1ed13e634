// A block of memory with a descriptor of its own, by which another process maps it: for what a
// worker reads and no buffer of its pool can hold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"
#include "memory/shared_memory.h"

namespace s3io {

class SharedBlock {
 public:
  // Of all that a process has at a time, so that they do not use up its descriptors.
  static constexpr int64_t kMost = 64;
  static int64_t count();

  // At least `size_bytes`, which are more than 0, at a multiple of the huge page. Backed by memory
  // as far as whole huge pages go. Throws Error(out_of_memory | no_space | access).
  explicit SharedBlock(int64_t size_bytes);
  SharedBlock(const SharedBlock&) = delete;
  SharedBlock& operator=(const SharedBlock&) = delete;
  ~SharedBlock();

  std::byte* data() const { return memory_.data(); }
  int fd() const { return fd_.get(); }

 private:
  const UniqueFd fd_;
  SharedMapping memory_;
};

}  // namespace s3io
