// Samples as Python has them, field by field, as parts of a file.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <span>
#include <vector>

#include "store/file_parts.h"

namespace s3io::bindings {

using IntList = pybind11::typing::List<pybind11::int_>;
// (begins within each sample, pieces): of one field, or of all fixed-size ones. `pieces` is a list
// with a buffer for each sample, or (buffer, begins, ends): what each sample has of one buffer.
using ColumnTuple = pybind11::typing::Tuple<IntList, pybind11::object>;

// Buffers of Python, held as long as this lives. Made and destroyed with the GIL.
class HeldBuffers {
 public:
  HeldBuffers() = default;
  HeldBuffers(const HeldBuffers&) = delete;
  HeldBuffers& operator=(const HeldBuffers&) = delete;
  ~HeldBuffers();

  void reserve(size_t count) { views_.reserve(count); }
  // Its bytes, which lie together.
  std::span<const std::byte> add(pybind11::handle object);

 private:
  std::vector<Py_buffer> views_;
};

// Made and destroyed with the GIL.
class SampleParts {
 public:
  // A start, a size, and a piece of each column for every sample. Throws Error(config) where there
  // are not as many of each.
  SampleParts(const IntList& starts, const IntList& sizes, const std::vector<ColumnTuple>& columns);

  std::span<const FilePart> parts() const { return parts_; }
  std::span<const FilePiece> pieces() const { return pieces_; }

 private:
  // The piece of each sample in one column; `first` is that of the first sample.
  void add_buffers(FilePiece* first, size_t stride, const pybind11::list& buffers);
  void add_slices(FilePiece* first, size_t stride, const pybind11::tuple& slices);

  std::vector<FilePart> parts_;
  std::vector<FilePiece> pieces_;
  HeldBuffers held_;
};

}  // namespace s3io::bindings
