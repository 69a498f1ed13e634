// Memory that several processes can map: a memfd, mapped MAP_SHARED at a huge-page boundary.
//
// Sparse: untouched pages cost nothing. Leaves no name in any file system, whoever is killed.
// Address and file offset are congruent modulo the huge page, which collapsing requires.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"

namespace s3io {

// A file of zeros that lies in memory alone. Throws Error(out_of_memory).
UniqueFd make_memory_file(int64_t size_bytes);

class SharedMapping {
 public:
  // Maps `size_bytes`, rounded up to whole huge pages, of a memory file from `offset` on, a
  // multiple of the huge page. The file may be closed afterwards. Throws Error(out_of_memory), and
  // Error(data) for a file that is shorter.
  SharedMapping(int fd, int64_t offset, int64_t size_bytes);
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;
  ~SharedMapping();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
  std::byte* data_ = nullptr;
};

// Backs one huge page of a SharedMapping with physical memory, so that no later access faults.
// Keeps what it holds.
// Returns true if a huge page backs it, false if 4 KiB pages do (older kernel, or memory too
// fragmented). Must come before pinning: pinned pages cannot be collapsed. Throws
// Error(out_of_memory) when not even small pages are to be had.
bool prepare_huge_page(std::byte* huge_page);

// What this process can still allocate: MemAvailable, lowered by every cgroup limit above it. In
// bytes.
int64_t available_memory_bytes();

}  // namespace s3io
