// What the kernel says of cgroups and their memory: whatever the texts are, the answers lie within
// what an int64 holds, and no group's folder lies outside of a mount.
#include "base/cgroup.h"
#include "base/kernel_text.h"
#include "engine/input.h"
#include "memory/available_memory.h"

namespace s3io::fuzz {
namespace {

void read(Input& input) {
  const CgroupMemory group{.limit = input.text(),
                           .usage = input.text(),
                           .stat = input.text(),
                           .swap_limit = input.text(),
                           .swap_usage = input.text(),
                           .kernel_usage = input.text(),
                           .unified = input.flag()};
  const int64_t free_swap_bytes = input.between(0, std::numeric_limits<int64_t>::max() / 2);
  if (const auto available = available_memory(group, free_swap_bytes)) {
    require(available->bytes >= 0);
    require(available->bytes <= number_in(group.limit));
    require(available->with_swap_bytes >= available->bytes);
  }
  const std::string groups = input.text();
  const std::string mounts = input.rest();
  for (const Cgroup& cgroup : parse_cgroups(groups, mounts, "memory")) {
    require(cgroup.folder.size() <= groups.size() + mounts.size());
    require(cgroup.folder.find("/../") == std::string::npos ||
            mounts.find("..") != std::string::npos || mounts.find('\\') != std::string::npos);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
