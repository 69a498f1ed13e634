// A range of bytes of one file or object, checked once where it enters the library.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/error.h"

namespace s3io {

struct ByteRange {
  int64_t offset = 0;
  int64_t length = 0;

  int64_t end() const { return offset + length; }

  // Throws Error(range) for negative or overflowing values.
  static ByteRange checked(int64_t offset, int64_t length, const std::string& path) {
    if (offset < 0 || length < 0 || offset > std::numeric_limits<int64_t>::max() - length) {
      throw Error(ErrorKind::range,
                  message(path, ": invalid range: offset ", offset, ", length ", length,
                          " (both must be >= 0 and their sum must fit in 63 bits)"));
    }
    return {offset, length};
  }
};

}  // namespace s3io
