// Layouts of any numbers: refused, or all of a field's bytes lie in its record, and copies of it
// are right.
#include "format/record_layout.h"

#include <algorithm>
#include <cstddef>

#include "engine/input.h"

namespace s3io::fuzz {
namespace {

constexpr int64_t kMostCopied = 1 << 12;

ScalarType any_type(Input& input) {
  return static_cast<ScalarType>(input.between(0, std::ssize(kScalarTypes) - 1));
}

RecordLayout any_layout(Input& input) {
  RecordLayout layout;
  const auto fields = static_cast<size_t>(input.between(0, 4));
  for (size_t index = 0; index < fields; ++index) {
    Field field;
    field.type = any_type(input);
    field.output = input.flag() ? field.type : any_type(input);
    field.swap_bytes = input.flag();
    field.offset = input.number();
    field.shape = input.numbers(4);
    layout.fields.push_back(std::move(field));
  }
  layout.record_bytes = input.number();
  layout.record_stride = input.flag() ? layout.record_bytes : input.number();
  return layout;
}

// As the bytes of one element are to come out where no type changes.
void check_unchanged(const Field& field, const std::byte* in, const std::byte* out, int64_t size) {
  const bool is_complex =
      field.type == ScalarType::complex64 || field.type == ScalarType::complex128;
  const int64_t unit = field.swap_bytes ? size_bytes(field.type) / (is_complex ? 2 : 1) : 1;
  for (int64_t begin = 0; begin < size; begin += unit) {
    for (int64_t byte = 0; byte < unit; ++byte) {
      require(out[begin + byte] == in[begin + unit - 1 - byte]);
    }
  }
}

void check_copies(const RecordLayout& layout, const Field& field, Input& input) {
  const int64_t count = input.between(1, 3);
  const int64_t stride = std::max(layout.record_bytes, layout.record_stride);
  const int64_t bytes_out = output_bytes(field, count);
  if (stride > kMostCopied || bytes_out > kMostCopied) return;
  std::vector<std::byte> rows(static_cast<size_t>((count - 1) * stride + layout.record_bytes));
  for (std::byte& byte : rows) byte = static_cast<std::byte>(input.between(0, 255));
  std::vector<std::byte> out(static_cast<size_t>(bytes_out) + 1);  // fields may have no bytes
  copy_field(field, rows.data(), stride, count, out.data());
  if (field.type != field.output) return;
  const int64_t size = field.num_elements() * size_bytes(field.type);
  for (int64_t row = 0; row < count; ++row) {
    check_unchanged(field, rows.data() + row * stride + field.offset, out.data() + row * size,
                    size);
  }
}

void read(Input& input) {
  const RecordLayout layout = any_layout(input);
  try {
    layout.validate();
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::config);
    return;
  }
  for (const Field& field : layout.fields) {
    const int64_t bytes = field.num_elements() * size_bytes(field.type);
    require(bytes >= 0 && field.offset >= 0 && field.offset + bytes <= layout.record_bytes);
    // As a tensor is made of it (bindings/tensors.cpp).
    int64_t elements = 1;
    for (const int64_t extent : field.shape) elements *= std::max<int64_t>(extent, 1);
    require(elements > 0);
    can_view(layout, field, input.between(0, 1 << 20));
    check_copies(layout, field, input);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
