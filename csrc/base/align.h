// Rounding to power-of-two alignments, in 64-bit signed sizes.
#pragma once

#include <cstdint>

namespace s3io {

inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;
inline constexpr int64_t kPageBytes = 4096;
inline constexpr int64_t kCacheLineBytes = 64;  // a multiple of every element size

constexpr bool is_power_of_two(int64_t value) { return value > 0 && (value & (value - 1)) == 0; }

// `alignment` is a power of two; `value` is not negative.
constexpr int64_t align_down(int64_t value, int64_t alignment) { return value & ~(alignment - 1); }

constexpr int64_t align_up(int64_t value, int64_t alignment) {
  return align_down(value + alignment - 1, alignment);
}

}  // namespace s3io
