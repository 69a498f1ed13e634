// Columns of C++ as arrays of Python, which nobody copies.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>

namespace s3io::bindings {

// A column of `owner`, which cannot be written to.
template <typename Value>
pybind11::array_t<Value> view_of(const Value* data, size_t count, pybind11::handle owner) {
  pybind11::array_t<Value> view(static_cast<pybind11::ssize_t>(count), data, owner);
  view.attr("flags").attr("writeable") = false;
  return view;
}

}  // namespace s3io::bindings
