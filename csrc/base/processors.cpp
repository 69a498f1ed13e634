#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace s3io {
namespace {

constexpr int kMostCopiers = 8;

}  // namespace

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails where the machine has more processors than the set has room for.
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int copiers_for(int processes) {
  return std::clamp(available_processors() / std::max(1, processes), 1, kMostCopiers);
}

}  // namespace s3io
