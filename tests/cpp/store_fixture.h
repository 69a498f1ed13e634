// Stores that split early, and a comparison with what a file holds.
#pragma once

#include "store/file_store.h"
#include "testing.h"

namespace s3io::testing {

inline FileSystemConfig small_chunks(DirectMode mode) {
  FileSystemConfig config;
  config.direct_io = mode;
  config.range_engine = {
      .chunk_size = 65536, .max_concurrent_ranges = 4, .min_split_size = 200'000};
  return config;
}

inline bool is_range(const ObjectData& data, const Bytes& contents, int64_t offset,
                     int64_t length) {
  const auto begin = contents.begin() + offset;
  return data.length == length && equals(data.begin, Bytes(begin, begin + length));
}

}  // namespace s3io::testing
