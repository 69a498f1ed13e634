#include "bindings/sample_parts.h"

#include "base/error.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

void check_count(const py::list& list, size_t count) {
  if (list.size() == count) return;
  throw Error(ErrorKind::config, message("a list has ", list.size(), " items, not one for each of ",
                                         count, " samples"));
}

int64_t number_at(const py::list& list, size_t index) {
  PyObject* item = PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(index));
  const int64_t number = PyLong_AsLongLong(item);
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

}  // namespace

HeldBuffers::~HeldBuffers() {
  for (Py_buffer& view : views_) PyBuffer_Release(&view);
}

std::span<const std::byte> HeldBuffers::add(py::handle object) {
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  views_.push_back(view);
  return {static_cast<const std::byte*>(view.buf), static_cast<size_t>(view.len)};
}

SampleParts::SampleParts(const IntList& starts, const IntList& sizes,
                         const std::vector<ColumnTuple>& columns)
    : parts_(starts.size()), pieces_(starts.size() * columns.size()) {
  const size_t count = parts_.size();
  const size_t stride = columns.size();
  held_.reserve(pieces_.size());
  check_count(sizes, count);
  for (size_t sample = 0; sample < count; ++sample) {
    const int64_t start = number_at(starts, sample);
    parts_[sample] = {start, start + number_at(sizes, sample), stride};
  }
  for (size_t column = 0; column < stride; ++column) {
    const auto begins = columns[column][0].cast<py::list>();
    const auto pieces = columns[column][1].cast<py::object>();
    check_count(begins, count);
    for (size_t sample = 0; sample < count; ++sample) {
      pieces_[sample * stride + column].begin = parts_[sample].begin + number_at(begins, sample);
    }
    if (py::isinstance<py::list>(pieces)) {
      add_buffers(pieces_.data() + column, stride, pieces.cast<py::list>());
    } else {
      add_slices(pieces_.data() + column, stride, pieces.cast<py::tuple>());
    }
  }
}

void SampleParts::add_buffers(FilePiece* first, size_t stride, const py::list& buffers) {
  check_count(buffers, parts_.size());
  for (size_t sample = 0; sample < parts_.size(); ++sample) {
    first[sample * stride].data =
        held_.add(PyList_GET_ITEM(buffers.ptr(), static_cast<Py_ssize_t>(sample)));
  }
}

void SampleParts::add_slices(FilePiece* first, size_t stride, const py::tuple& slices) {
  const std::span<const std::byte> all = held_.add(slices[0]);
  const auto begins = slices[1].cast<py::list>();
  const auto ends = slices[2].cast<py::list>();
  check_count(begins, parts_.size());
  check_count(ends, parts_.size());
  for (size_t sample = 0; sample < parts_.size(); ++sample) {
    const int64_t begin = number_at(begins, sample);
    const int64_t end = number_at(ends, sample);
    if (begin < 0 || end < begin || end > std::ssize(all)) {
      throw Error(ErrorKind::config, message("the bytes [", begin, ", ", end,
                                             ") are not within a buffer of ", all.size()));
    }
    first[sample * stride].data =
        all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }
}

}  // namespace s3io::bindings
