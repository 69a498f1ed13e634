// Memory that another process shares by a descriptor, here without the descriptor: a mapping keeps
// the memory alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace s3io {

struct SharedFile {
  std::byte* data = nullptr;
  void* owner = nullptr;  // for `free_shared_file`, exactly once
  bool is_mapped = false;
};

// `length` bytes of the memory file from `offset` on; it may be closed afterwards. Mapped; but
// copied while kMostMappings are, or where one more cannot be: a process may have some 65,000 in
// all, and without any nothing else works. `data` is as far into a page as `offset`, or at least
// into a cache line. Throws Error(out_of_memory), Error(data) for a file that is shorter.
SharedFile open_shared_file(int fd, int64_t offset, int64_t length);
inline constexpr int64_t kMostMappings = 16384;
void free_shared_file(void* owner) noexcept;

// How many are mapped now.
int64_t mapped_files();

}  // namespace s3io
