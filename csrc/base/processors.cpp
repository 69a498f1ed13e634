#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

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

// The group of this process in the unified hierarchy: the line "0::/...".
std::string own_cgroup() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return line.substr(3);
  }
  return "";
}

}  // namespace

int processors_of_cgroup(const std::string& root, std::string group) {
  int least = std::numeric_limits<int>::max();
  while (true) {
    std::ifstream file(root + group + "/cpu.max");  // "quota period" or "max period"
    double quota = 0;
    double period = 0;
    if (file >> quota >> period && quota > 0 && period > 0) {
      least = static_cast<int>(std::min<double>(least, std::ceil(quota / period)));
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

int available_processors() {
  return std::max(
      1, std::min(processors_to_run_on(), processors_of_cgroup("/sys/fs/cgroup", own_cgroup())));
}

int copiers_for(int processes) {
  return std::clamp(available_processors() / std::max(1, processes), 1, kMostCopiers);
}

}  // namespace s3io
