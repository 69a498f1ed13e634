// Bytes of objects, which are known by their number.
#pragma once

#include <cstdint>

namespace s3io {

// Where bytes of a record lie.
struct Extent {
  int64_t object = 0;
  int64_t offset = 0;
  int64_t length = 0;
};

// Bytes that are read at once, and where they land.
struct Run {
  int64_t object = 0;
  int64_t offset = 0;
  int64_t length = 0;
  int64_t position = 0;        // in the buffer, from the start of the landing area
  int64_t rows = 0;            // records that begin in it
  bool has_checksums = false;  // each record in it is compared with one, once it has landed
};

}  // namespace s3io
