// A file's name as Python gives it. Takes the place of std::filesystem::path, whose conversion is
// not among the headers of PyTorch before 2.8.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace s3io::bindings {

// str, bytes or os.PathLike in Python; the bytes that the kernel takes (os.fsencode) here.
struct Path {
  std::string native;
};

}  // namespace s3io::bindings

namespace pybind11::detail {

template <>
struct type_caster<s3io::bindings::Path> {
  PYBIND11_TYPE_CASTER(s3io::bindings::Path, const_name("os.PathLike | str | bytes"));

  bool load(handle source, bool /*convert*/) {
    PyObject* bytes = nullptr;
    if (PyUnicode_FSConverter(source.ptr(), &bytes) == 0) {
      PyErr_Clear();
      return false;
    }
    const auto owner = reinterpret_steal<object>(bytes);
    value.native =
        std::string(PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes)));
    return true;
  }
};

}  // namespace pybind11::detail
