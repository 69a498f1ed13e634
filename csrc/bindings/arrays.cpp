#include <pybind11/numpy.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "format/npy_head.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

using Numbers64 = py::array_t<int64_t, py::array::c_style>;
using Bytes = py::array_t<uint8_t, py::array::c_style>;

// Columns.
struct NpyHeads {
  explicit NpyHeads(py::ssize_t count)
      : header_bytes(count),
        axes(count),
        shapes({count, static_cast<py::ssize_t>(NpyHead::kMostAxes)}),
        types(count) {}

  void set(py::ssize_t number, const NpyHead& head, int64_t type) {
    header_bytes.mutable_at(number) = head.header_bytes;
    axes.mutable_at(number) = static_cast<int64_t>(head.axes);
    types.mutable_at(number) = type;
    int64_t* shape = shapes.mutable_data(number);
    std::fill_n(std::copy_n(head.shape.begin(), head.axes, shape), NpyHead::kMostAxes - head.axes,
                int64_t{1});
  }

  Numbers64 header_bytes;
  Numbers64 axes;
  Numbers64 shapes;
  Numbers64 types;
  py::typing::List<py::bytes> type_names;
};

// The place of a name among those that are known; it may be a new one.
int64_t number_of(std::string_view name, std::vector<std::string_view>& known) {
  const auto found = std::ranges::find(known, name);
  const auto number = found - known.begin();
  if (found == known.end()) known.push_back(name);
  return number;
}

NpyHeads parse_npy_heads(const Bytes& data, const Numbers64& begins, const Numbers64& ends) {
  if (data.ndim() != 2 || begins.size() != data.shape(0) || ends.size() != data.shape(0)) {
    throw Error(ErrorKind::config, "one beginning and one end for each head is needed");
  }
  const auto length = static_cast<int64_t>(data.shape(1));
  NpyHeads heads(data.shape(0));
  std::vector<std::string_view> names;
  for (py::ssize_t number = 0; number < data.shape(0); ++number) {
    const int64_t end = std::clamp<int64_t>(ends.at(number), 0, length);
    const int64_t begin = std::clamp<int64_t>(begins.at(number), 0, end);
    const auto* row = reinterpret_cast<const std::byte*>(data.data(number, 0));
    const auto head = parse_npy_head({row + begin, row + end});
    heads.set(number, head.value_or(NpyHead{}), head ? number_of(head->type, names) : -1);
  }
  for (const std::string_view name : names)
    heads.type_names.append(py::bytes(name.data(), name.size()));
  return heads;
}

}  // namespace

void register_arrays(py::module_& module) {
  py::class_<NpyHeads>(module, "NpyHeads", "Headers of .npy files in columns.")
      .def_readonly("header_bytes", &NpyHeads::header_bytes)
      .def_readonly("axes", &NpyHeads::axes, "How many.")
      .def_readonly("shapes", &NpyHeads::shapes, "[n, 64]; 1 behind the last axis.")
      .def_readonly("types", &NpyHeads::types,
                    "Numbers of names of types; -1: it is a header that only format/npy.py reads.")
      .def_readonly("type_names", &NpyHeads::type_names);
  module.def("parse_npy_heads", &parse_npy_heads, py::kw_only(), py::arg("data"), py::arg("begins"),
             py::arg("ends"),
             "Of heads of files, [n, length]: from each one's beginning to its end there.");
}

}  // namespace s3io::bindings
