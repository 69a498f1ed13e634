// Anonymous memory that other processes can map: a memfd, mapped MAP_SHARED at a huge-page
// boundary.
//
// Sparse: untouched pages cost nothing. Leaves no name in any file system, whoever is killed.
// Address and file offset are congruent modulo the huge page, which collapsing requires.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"

namespace s3io {

class SharedMemory {
 public:
  // `size_bytes` is rounded up to whole huge pages. Throws Error(out_of_memory).
  explicit SharedMemory(int64_t size_bytes);
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  int64_t size_ = 0;
  std::byte* data_ = nullptr;
};

// Backs one huge page of a SharedMemory with physical memory, so that no later access faults. Keeps
// what it holds.
// Returns true if a huge page backs it, false if 4 KiB pages do (older kernel, or memory too
// fragmented). Must come before pinning: pinned pages cannot be collapsed. Throws
// Error(out_of_memory) when not even small pages are to be had.
bool prepare_huge_page(std::byte* huge_page);

// What this process can still allocate: MemAvailable, lowered by every cgroup limit above it. In
// bytes.
int64_t available_memory_bytes();

}  // namespace s3io
