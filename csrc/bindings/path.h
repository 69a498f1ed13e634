// A file's name as Python gives it. Takes the place of std::filesystem::path, whose conversion is
// not among the headers of PyTorch before 2.8.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "base/error.h"

namespace s3io::bindings {

// str, bytes or os.PathLike in Python; the bytes that the kernel takes (os.fsencode) here. What no
// file can be called is an Error(config).
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
      const bool is_other_type = PyErr_ExceptionMatches(PyExc_TypeError) != 0;
      PyErr_Clear();
      if (is_other_type) return false;
      throw s3io::Error(s3io::ErrorKind::config,
                        s3io::message(repr(source).cast<std::string>(),
                                      " is not a path: no file can have such a name"));
    }
    const auto owner = reinterpret_steal<object>(bytes);
    value.native =
        std::string(PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes)));
    return true;
  }
};

}  // namespace pybind11::detail
