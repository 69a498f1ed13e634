#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "base/cgroup.h"
#include "base/kernel_text.h"

namespace s3io {
namespace {

constexpr int kMostCopiers = 8;

int processors_to_run_on() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails where the machine has more processors than the set has room for.
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

// The quota of one group in processors; nothing where it sets none.
std::optional<double> quota_of(const Cgroup& cgroup) {
  std::optional<int64_t> quota;
  std::optional<int64_t> period;
  if (cgroup.unified) {
    const std::string text = read_kernel_text(cgroup.folder + "/cpu.max");
    std::string_view rest = text;  // "quota period" or "max period"
    quota = number_in(take_until(rest, ' ').value_or(""));
    period = number_in(rest);
  } else {
    quota = number_in(read_kernel_text(cgroup.folder + "/cpu.cfs_quota_us"));  // -1: none
    period = number_in(read_kernel_text(cgroup.folder + "/cpu.cfs_period_us"));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace

int processors_of_cgroups(const std::string& root) {
  int least = std::numeric_limits<int>::max();
  for (const Cgroup& cgroup : own_cgroups("cpu", root)) {
    if (const std::optional<double> quota = quota_of(cgroup)) {
      least = static_cast<int>(std::min<double>(least, std::ceil(*quota)));
    }
  }
  return least;
}

int available_processors() {
  return std::max(1, std::min(processors_to_run_on(), processors_of_cgroups()));
}

int copiers_for(int processes) {
  return std::clamp(available_processors() / std::max(1, processes), 1, kMostCopiers);
}

}  // namespace s3io
