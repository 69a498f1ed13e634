// How much memory this process can still get.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/cgroup.h"

namespace s3io {

struct AvailableMemory {
  int64_t bytes = 0;            // without anything being swapped out
  int64_t with_swap_bytes = 0;  // what an allocation gets before the kernel ends a process for it
};

// As /proc/meminfo says, lowered by every cgroup limit at and above this process. What the kernel
// gives back when memory is wanted counts as available: the page cache, and its caches of names
// and inodes. `root` stands before all paths; for tests.
AvailableMemory available_memory(const std::string& root = "");

// The smallest memory limit of this process's cgroups; nothing where none sets one.
std::optional<int64_t> memory_limit_bytes(const std::string& root = "");

// What the files of one cgroup say; empty texts for files that are not there.
struct CgroupMemory {
  std::string limit;
  std::string usage;
  std::string stat;
  std::string swap_limit;    // v1: of memory and swap together
  std::string swap_usage;    // the same
  std::string kernel_usage;  // v1 alone
  bool unified = false;
};

// The same as `available_memory`, under this limit alone, with so much swap that is free on the
// machine. Nothing where there is no limit.
std::optional<AvailableMemory> available_memory(const CgroupMemory& group, int64_t free_swap_bytes);

}  // namespace s3io
