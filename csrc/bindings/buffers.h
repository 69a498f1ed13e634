// Arrays of Python's whose memory C++ uses: columns of tables, which nobody copies.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace s3io::bindings {

using KeptBuffers = std::vector<pybind11::buffer_info>;

// None yet. The last reference may be let go of by any thread.
std::shared_ptr<KeptBuffers> hold_buffers();

// Of an array that is held from now on, as it lies in memory: so many bytes; `count` unsigned
// numbers of so many bytes. Throws Error(config) where it is something else.
const std::byte* kept_bytes(const pybind11::buffer& array, int64_t bytes, KeptBuffers& held);
const void* kept_array(const pybind11::buffer& array, int64_t count, int64_t item_bytes,
                       KeptBuffers& held);

}  // namespace s3io::bindings
