// Memory that several processes can map: a memfd, mapped MAP_SHARED at a huge-page boundary.
//
// Sparse: untouched pages cost nothing. Leaves no name in any file system, whoever is killed.
// Address and file offset are congruent modulo the huge page, which collapsing requires.
//
// Where a container's filter refuses memfd_create, an unnamed file in /dev/shm serves. That is a
// file system of limited size, where touching a page that does not fit kills the process: what is
// going to be touched must be reserved or prepared before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"

namespace s3io {

// A file of zeros that lies in memory alone. Throws Error(out_of_memory | no_space | access).
UniqueFd make_memory_file(int64_t size_bytes);

class SharedMapping {
 public:
  // Maps `size_bytes`, rounded up to whole huge pages, of a memory file from `offset` on, a
  // multiple of the huge page. The file may be closed afterwards. `reserved_bytes` of it will be
  // touched without being prepared. Throws Error(out_of_memory), and Error(data) for a file that
  // is shorter.
  SharedMapping(int fd, int64_t offset, int64_t size_bytes, int64_t reserved_bytes = 0);
  // The same, shared with forked children alone: needs no file, so neither a filter nor a limit of
  // file sizes is in its way.
  explicit SharedMapping(int64_t size_bytes);
  SharedMapping(SharedMapping&& other) noexcept;
  SharedMapping& operator=(SharedMapping&&) = delete;
  ~SharedMapping();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

  // Backs one huge page, the one at `offset`, with physical memory, so that no later access faults.
  // Keeps what it holds.
  // Returns true if a huge page backs it, false if 4 KiB pages do (older kernel, or memory too
  // fragmented). Must come before pinning: pinned pages cannot be collapsed. Throws
  // Error(out_of_memory) when not even small pages are to be had.
  bool prepare_huge_page(int64_t offset);

 private:
  void map(int fd, int64_t offset, int flags);
  void reserve(int64_t offset, int64_t length);

  int64_t size_ = 0;
  std::byte* data_ = nullptr;
  UniqueFd limited_;  // the file, where its file system may run full
  int64_t offset_ = 0;
};

}  // namespace s3io
