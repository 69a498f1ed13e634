// A few bytes of each of many files, such as their headers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace s3io {

// `out` gets `length` bytes of each file, from its offset on; `counts`, how many there were: fewer
// at the end of a file. So many threads read. Throws Error for the first file that cannot be
// opened or read.
void read_heads(std::span<const std::string_view> paths, std::span<const int64_t> offsets,
                int64_t length, std::span<std::byte> out, std::span<int64_t> counts, int threads);

}  // namespace s3io
