#include "format/record_layout.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "format/half.h"

namespace s3io {
namespace {

constexpr int64_t kMaxRecordBytes = int64_t{1} << 46;
constexpr size_t kMostDimensions = 64;  // of a tensor that numpy can view, the batch's included

// Calls `visit` with a value of the C++ type of `type`; false for types without arithmetic here.
template <typename Visitor>
bool visit_arithmetic(ScalarType type, const Visitor& visit) {
  switch (type) {
    case ScalarType::boolean:
      visit(bool{});
      return true;
    case ScalarType::uint8:
      visit(uint8_t{});
      return true;
    case ScalarType::int8:
      visit(int8_t{});
      return true;
    case ScalarType::uint16:
      visit(uint16_t{});
      return true;
    case ScalarType::int16:
      visit(int16_t{});
      return true;
    case ScalarType::uint32:
      visit(uint32_t{});
      return true;
    case ScalarType::int32:
      visit(int32_t{});
      return true;
    case ScalarType::uint64:
      visit(uint64_t{});
      return true;
    case ScalarType::int64:
      visit(int64_t{});
      return true;
    case ScalarType::float16:
      visit(Float16{});
      return true;
    case ScalarType::bfloat16:
      visit(BFloat16{});
      return true;
    case ScalarType::float32:
      visit(float{});
      return true;
    case ScalarType::float64:
      visit(double{});
      return true;
    default:
      return false;
  }
}

bool has_arithmetic(ScalarType type) {
  return visit_arithmetic(type, [](auto) {});
}

bool is_float(ScalarType type) {
  return type == ScalarType::float16 || type == ScalarType::bfloat16 ||
         type == ScalarType::float32 || type == ScalarType::float64;
}

bool is_complex(ScalarType type) {
  return type == ScalarType::complex64 || type == ScalarType::complex128;
}

// The unit whose bytes are reversed: half a complex number.
int64_t swap_unit(ScalarType type) { return size_bytes(type) / (is_complex(type) ? 2 : 1); }

void copy_swapped(const std::byte* in, std::byte* out, int64_t size, int64_t unit) {
  for (int64_t begin = 0; begin < size; begin += unit) {
    std::reverse_copy(in + begin, in + begin + unit, out + begin);
  }
}

template <typename In>
In load(const std::byte* in, bool swap_bytes) {
  std::byte raw[sizeof(In)];
  std::memcpy(raw, in, sizeof(In));
  if (swap_bytes) std::reverse(raw, raw + sizeof(In));
  if constexpr (std::is_same_v<In, bool>) {
    return raw[0] != std::byte{0};  // any other bit pattern in a bool would be undefined
  } else {
    In value;
    std::memcpy(&value, raw, sizeof(In));
    return value;
  }
}

template <typename Out>
void store(Out value, std::byte* out) {
  std::memcpy(out, &value, sizeof(Out));
}

template <typename T>
constexpr bool kHas16Bits = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

template <typename Out, typename In>
Out convert(In value) {
  if constexpr (kHas16Bits<In>) {
    return convert<Out>(value.to_float());
  } else if constexpr (kHas16Bits<Out>) {
    return Out::from_float(static_cast<float>(value));
  } else {
    return static_cast<Out>(value);
  }
}

template <typename In, typename Out>
void convert_row(const std::byte* in, std::byte* out, int64_t elements, bool swap_bytes) {
  for (int64_t index = 0; index < elements; ++index, in += sizeof(In), out += sizeof(Out)) {
    store(convert<Out>(load<In>(in, swap_bytes)), out);
  }
}

// Rows of so many elements of the field's type.
void copy_rows(const Field& field, const std::byte* in, int64_t row_stride, int64_t count,
               int64_t elements, std::byte* out, int64_t bytes_out) {
  if (field.type == field.output) {
    const int64_t bytes_in = elements * size_bytes(field.type);
    for (int64_t row = 0; row < count; ++row, in += row_stride, out += bytes_out) {
      if (field.swap_bytes) {
        copy_swapped(in, out, bytes_in, swap_unit(field.type));
      } else {
        std::memcpy(out, in, static_cast<size_t>(bytes_in));
      }
    }
    return;
  }
  visit_arithmetic(field.type, [&](auto source) {
    visit_arithmetic(field.output, [&](auto target) {
      for (int64_t row = 0; row < count; ++row, in += row_stride, out += bytes_out) {
        convert_row<decltype(source), decltype(target)>(in, out, elements, field.swap_bytes);
      }
    });
  });
}

}  // namespace

int64_t Field::num_elements() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

void RecordLayout::validate() const {
  if (fields.empty()) throw Error(ErrorKind::config, "a record needs at least one field");
  if (record_bytes < 1 || record_bytes > kMaxRecordBytes || record_stride < 1 ||
      record_stride > kMaxRecordBytes) {
    throw Error(ErrorKind::config,
                message("a record must have at least 1 byte and at most ", kMaxRecordBytes,
                        ", not ", record_bytes, " (stride ", record_stride, ")"));
  }
  for (const Field& field : fields) {
    if (field.shape.size() >= kMostDimensions) {
      throw Error(ErrorKind::config,
                  message("field '", field.name, "': a shape has fewer than ", kMostDimensions,
                          " entries, not ", field.shape.size()));
    }
    int64_t bytes = size_bytes(field.type);
    int64_t extents = bytes;  // strides of tensors count empty dimensions as one
    for (const int64_t extent : field.shape) {
      if (extent < 0 || extents > kMaxRecordBytes / std::max<int64_t>(extent, 1)) {
        throw Error(ErrorKind::config,
                    message("field '", field.name, "': shape entry ", extent, " is out of bounds"));
      }
      bytes *= extent;
      extents *= std::max<int64_t>(extent, 1);
    }
    if (field.offset < 0 || field.offset > record_bytes - bytes) {
      throw Error(ErrorKind::config,
                  message("field '", field.name, "' lies outside of its record"));
    }
    const bool converts = field.type != field.output;
    const bool may_convert = has_arithmetic(field.type) && has_arithmetic(field.output) &&
                             (is_float(field.output) || !is_float(field.type));
    if (converts && !may_convert) {
      throw Error(ErrorKind::config,
                  message(field.name.empty() ? "dtype" : "field '" + field.name + "'",
                          ": no conversion from ", name_of(field.type), " to ",
                          name_of(field.output), "; use transform= for it"));
    }
  }
}

bool can_view(const RecordLayout& layout, const Field& field, int64_t first_row_bytes) {
  const int64_t item = size_bytes(field.type);
  return field.type == field.output && !(field.swap_bytes && swap_unit(field.type) > 1) &&
         (first_row_bytes + field.offset) % item == 0 && layout.record_stride % item == 0 &&
         layout.record_bytes % item == 0;
}

int64_t output_bytes(const Field& field, int64_t count) {
  return field.num_elements() * size_bytes(field.output) * count;
}

void copy_field(const Field& field, const std::byte* rows, int64_t row_stride, int64_t count,
                std::byte* out) {
  const int64_t elements = field.num_elements();
  const int64_t bytes_out = elements * size_bytes(field.output);
  copy_rows(field, rows + field.offset, row_stride, count, elements, out, bytes_out);
}

void copy_elements(const Field& field, const std::byte* in, int64_t count, std::byte* out) {
  copy_rows(field, in, 0, 1, count, out, 0);
}

}  // namespace s3io
