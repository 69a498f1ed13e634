#include "bindings/tensors.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/Storage.h>
#include <torch/csrc/utils/pybind.h>

#include <array>
#include <utility>

namespace py = pybind11;

namespace s3io::bindings {
namespace {

constexpr int64_t kStorageAlignment = 64;  // a multiple of every element size

c10::ScalarType torch_type(ScalarType type) {
  switch (type) {
    case ScalarType::boolean:
      return c10::ScalarType::Bool;
    case ScalarType::uint8:
      return c10::ScalarType::Byte;
    case ScalarType::int8:
      return c10::ScalarType::Char;
    case ScalarType::uint16:
      return c10::ScalarType::UInt16;
    case ScalarType::int16:
      return c10::ScalarType::Short;
    case ScalarType::uint32:
      return c10::ScalarType::UInt32;
    case ScalarType::int32:
      return c10::ScalarType::Int;
    case ScalarType::uint64:
      return c10::ScalarType::UInt64;
    case ScalarType::int64:
      return c10::ScalarType::Long;
    case ScalarType::float16:
      return c10::ScalarType::Half;
    case ScalarType::bfloat16:
      return c10::ScalarType::BFloat16;
    case ScalarType::float32:
      return c10::ScalarType::Float;
    case ScalarType::float64:
      return c10::ScalarType::Double;
    case ScalarType::complex64:
      return c10::ScalarType::ComplexFloat;
    case ScalarType::complex128:
      return c10::ScalarType::ComplexDouble;
    case ScalarType::float8_e4m3fn:
      return c10::ScalarType::Float8_e4m3fn;
    case ScalarType::float8_e5m2:
      return c10::ScalarType::Float8_e5m2;
    case ScalarType::float8_e4m3fnuz:
      return c10::ScalarType::Float8_e4m3fnuz;
    case ScalarType::float8_e5m2fnuz:
      return c10::ScalarType::Float8_e5m2fnuz;
  }
  return c10::ScalarType::Undefined;
}

// A storage over [begin, end) that owns `buffer`. It begins a little earlier where that makes
// offsets of tensors, which torch counts in elements, whole numbers; buffers begin at such an
// address.
struct SharedStorage {
  SharedStorage(AlignedBuf buffer, std::byte* begin, const std::byte* end)
      : base(begin - (reinterpret_cast<uintptr_t>(begin) % kStorageAlignment)),
        storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(end - base),
                c10::DataPtr(base, buffer.detach(), &AlignedBuf::free_detached, c10::kCPU),
                /*allocator=*/nullptr, /*resizable=*/false) {}

  at::Tensor view(const std::byte* data, ScalarType type, at::IntArrayRef sizes,
                  at::IntArrayRef strides) const {
    at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
        c10::scalarTypeToTypeMeta(torch_type(type)));
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides,
                                                        (data - base) / size_bytes(type));
    return tensor;
  }

  std::byte* base;
  c10::Storage storage;
};

using Extents = c10::SmallVector<int64_t, 8>;

at::Tensor field_tensor(const SharedStorage& storage, const Field& field, const FieldRows& rows,
                        int64_t count) {
  Extents sizes{count};
  sizes.append(field.shape.begin(), field.shape.end());
  Extents strides(sizes.size(), 0);
  int64_t stride = 1;
  for (size_t dimension = sizes.size() - 1; dimension > 0; --dimension) {
    strides[dimension] = stride;
    stride *= std::max<int64_t>(sizes[dimension], 1);
  }
  strides[0] = rows.row_stride / size_bytes(field.output);
  return storage.view(rows.data, field.output, sizes, strides);
}

}  // namespace

py::object bytes_tensor(ObjectData data) {
  std::byte* begin = data.begin;
  const std::array<int64_t, 1> size{data.length};
  const std::array<int64_t, 1> stride{1};
  const SharedStorage storage(std::move(data.buffer), begin, begin + data.length);
  return py::cast(storage.view(begin, ScalarType::uint8, size, stride));
}

py::object batch_tensors(Batch& batch, const RecordLayout& layout) {
  const SharedStorage storage(std::move(batch.buffer), batch.begin, batch.end);
  const auto tensor = [&](size_t index) {
    return py::cast(field_tensor(storage, layout.fields[index], batch.fields[index], batch.count));
  };
  py::object fields;
  if (layout.fields.size() == 1 && layout.fields[0].name.empty()) {
    fields = tensor(0);
  } else {
    py::dict by_name;
    for (size_t index = 0; index < layout.fields.size(); ++index) {
      by_name[py::str(layout.fields[index].name)] = tensor(index);
    }
    fields = std::move(by_name);
  }
  if (batch.record_numbers == nullptr) return fields;
  const std::array<int64_t, 1> size{batch.count};
  const std::array<int64_t, 1> stride{1};
  return py::make_tuple(fields,
                        storage.view(batch.record_numbers, ScalarType::int64, size, stride));
}

}  // namespace s3io::bindings
