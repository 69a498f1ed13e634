#include "memory/available_memory.h"

#include <algorithm>
#include <limits>

#include "base/kernel_text.h"

namespace s3io {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
// v1 says "no limit" as the largest number of pages, in bytes.
constexpr int64_t kMostLimit = kUnlimited / 2;

std::optional<int64_t> limit_in(const std::string& text) {
  const std::optional<int64_t> limit = number_in(text);
  return limit && *limit >= 0 && *limit < kMostLimit ? limit : std::nullopt;
}

// A number that the kernel wrote, without those that no memory has.
int64_t amount(std::optional<int64_t> number) {
  return std::clamp<int64_t>(number.value_or(0), 0, kMostLimit);
}

// What the kernel takes back before it refuses memory to the group, and those below it.
int64_t reclaimable_bytes(const CgroupMemory& group) {
  const auto of = [&](const char* key) { return amount(number_after(group.stat, key)); };
  if (group.unified) {
    return amount(of("inactive_file ") + of("active_file ")) + of("slab_reclaimable ");
  }
  // v1 does not say what of the kernel's own memory are caches; of a large one nearly all is.
  return amount(of("total_inactive_file ") + of("total_active_file ")) +
         amount(number_in(group.kernel_usage));
}

CgroupMemory read_group(const Cgroup& cgroup) {
  const auto text = [&](const char* name) { return read_kernel_text(cgroup.folder + "/" + name); };
  if (cgroup.unified) {
    return {.limit = text("memory.max"),
            .usage = text("memory.current"),
            .stat = text("memory.stat"),
            .swap_limit = text("memory.swap.max"),
            .swap_usage = text("memory.swap.current"),
            .kernel_usage = {},
            .unified = true};
  }
  return {.limit = text("memory.limit_in_bytes"),
          .usage = text("memory.usage_in_bytes"),
          .stat = text("memory.stat"),
          .swap_limit = text("memory.memsw.limit_in_bytes"),
          .swap_usage = text("memory.memsw.usage_in_bytes"),
          .kernel_usage = text("memory.kmem.usage_in_bytes"),
          .unified = false};
}

AvailableMemory of_machine(const std::string& root, int64_t& free_swap_bytes) {
  constexpr int64_t kMostKibibytes = kMostLimit / 2048;
  const std::string text = read_kernel_text(root + "/proc/meminfo");
  const auto bytes = [&](const char* key) -> std::optional<int64_t> {
    const std::optional<int64_t> kibibytes = number_after(text, key);
    if (!kibibytes) return std::nullopt;
    return std::clamp<int64_t>(*kibibytes, 0, kMostKibibytes) * 1024;
  };
  free_swap_bytes = bytes("SwapFree:").value_or(0);
  const std::optional<int64_t> available = bytes("MemAvailable:");
  if (!available) return {kUnlimited, kUnlimited};
  return {*available, *available + free_swap_bytes};
}

}  // namespace

std::optional<AvailableMemory> available_memory(const CgroupMemory& group,
                                                int64_t free_swap_bytes) {
  const std::optional<int64_t> limit = limit_in(group.limit);
  if (!limit) return std::nullopt;
  const int64_t usage = amount(number_in(group.usage));
  const int64_t used = std::max<int64_t>(0, usage - reclaimable_bytes(group));
  AvailableMemory available;
  available.bytes = std::max<int64_t>(0, *limit - used);
  int64_t swap = free_swap_bytes;
  if (const std::optional<int64_t> swap_limit = limit_in(group.swap_limit)) {
    int64_t left = *swap_limit - amount(number_in(group.swap_usage));
    if (!group.unified) left -= *limit - usage;
    swap = std::clamp<int64_t>(left, 0, free_swap_bytes);
  }
  available.with_swap_bytes = available.bytes + swap;
  return available;
}

AvailableMemory available_memory(const std::string& root) {
  int64_t free_swap_bytes = 0;
  AvailableMemory least = of_machine(root, free_swap_bytes);
  for (const Cgroup& cgroup : own_cgroups("memory", root)) {
    const auto here = available_memory(read_group(cgroup), free_swap_bytes);
    if (!here) continue;
    least.bytes = std::min(least.bytes, here->bytes);
    least.with_swap_bytes = std::min(least.with_swap_bytes, here->with_swap_bytes);
  }
  return least;
}

std::optional<int64_t> memory_limit_bytes(const std::string& root) {
  std::optional<int64_t> least;
  for (const Cgroup& cgroup : own_cgroups("memory", root)) {
    const std::optional<int64_t> limit = limit_in(read_group(cgroup).limit);
    if (limit) least = std::min(least.value_or(*limit), *limit);
  }
  return least;
}

}  // namespace s3io
