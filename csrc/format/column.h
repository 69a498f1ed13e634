// Numbers of a column that may lie at any address, as those of a mapped file do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace s3io {

template <class Number>
Number number_at(const std::byte* column, int64_t index) {
  Number number;
  std::memcpy(&number, column + index * static_cast<int64_t>(sizeof(Number)), sizeof(Number));
  return number;
}

// Brings it into the processor's cache. Loads that nothing waits for run side by side; a prefetch
// instruction may be dropped: of 256 numbers of a large table, it left most of the waiting.
inline void touch(const void* address) {
  asm volatile("" : : "r"(*static_cast<const unsigned char*>(address)));
}

}  // namespace s3io
