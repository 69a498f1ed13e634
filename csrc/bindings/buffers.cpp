#include "bindings/buffers.h"

#include <string_view>

#include "base/error.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

int drop(void* held) {
  delete static_cast<KeptBuffers*>(held);
  return 0;
}

// As Python's struct module writes it.
bool is_unsigned_here(std::string_view format) {
  constexpr std::string_view kOtherOrder = ">!", kUnsigned = "BHILQN";
  return !format.empty() && kOtherOrder.find(format.front()) == std::string_view::npos &&
         kUnsigned.find(format.back()) != std::string_view::npos;
}

bool is_packed(const py::buffer_info& info) {
  int64_t stride = info.itemsize;
  for (auto axis = static_cast<size_t>(info.ndim); axis-- > 0;) {
    if (info.shape[axis] > 1 && info.strides[axis] != stride) return false;
    stride *= info.shape[axis];
  }
  return true;
}

}  // namespace

// A thread without the GIL, which is one that was left behind, must not ask for it: Python ends who
// asks while it shuts down. Its main thread then lets go.
std::shared_ptr<KeptBuffers> hold_buffers() {
  return {new KeptBuffers, [](KeptBuffers* held) {
            if (Py_IsInitialized() == 0) return;  // the process is about to be gone
            if (PyGILState_Check() != 0) {
              drop(held);
            } else {
              static_cast<void>(Py_AddPendingCall(&drop, held));  // or it stays, for good
            }
          }};
}

const std::byte* kept_bytes(const py::buffer& array, int64_t bytes, KeptBuffers& held) {
  const py::buffer_info& info = held.emplace_back(array.request());
  if (info.size * info.itemsize != bytes || !is_packed(info)) {
    throw Error(ErrorKind::config,
                message("a table needs ", bytes, " bytes of values, one after the other, not ",
                        info.size * info.itemsize));
  }
  return static_cast<const std::byte*>(info.ptr);
}

const void* kept_array(const py::buffer& array, int64_t count, int64_t item_bytes,
                       KeptBuffers& held) {
  const py::buffer_info& info = held.emplace_back(array.request());
  if (info.itemsize != item_bytes || info.size != count || !is_packed(info) ||
      !is_unsigned_here(info.format) ||
      reinterpret_cast<uintptr_t>(info.ptr) % static_cast<uintptr_t>(item_bytes) != 0) {
    throw Error(ErrorKind::config,
                message("a table needs ", count, " unsigned numbers of ", item_bytes,
                        " bytes in this machine's order, one after the other; these are ",
                        info.size, " of the type '", info.format, "'"));
  }
  return info.ptr;
}

}  // namespace s3io::bindings
