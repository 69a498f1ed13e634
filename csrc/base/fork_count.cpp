#include "base/fork_count.h"

#include <pthread.h>

#include <atomic>

namespace s3io {
namespace {

std::atomic<uint32_t> count{0};

bool count_forks() {
  ::pthread_atfork(nullptr, nullptr, [] { count.fetch_add(1, std::memory_order_relaxed); });
  return true;
}

}  // namespace

uint32_t fork_count() {
  [[maybe_unused]] static const bool counting = count_forks();
  return count.load(std::memory_order_relaxed);
}

}  // namespace s3io
