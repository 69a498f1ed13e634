// Counters that one thread raises while others read them.
#pragma once

#include <atomic>
#include <cstdint>

namespace s3io {

inline void add(std::atomic<int64_t>& counter, int64_t amount) {
  counter.fetch_add(amount, std::memory_order_relaxed);
}

}  // namespace s3io
