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

}  // namespace s3io
