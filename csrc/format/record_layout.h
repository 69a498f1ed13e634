// What a fixed-size record looks like: its fields, its size, and how far apart records lie in a
// file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "format/scalar_type.h"

namespace s3io {

struct Field {
  std::string name = {};                  // empty for the only field of a plain layout
  ScalarType type = ScalarType::uint8;    // as stored
  ScalarType output = ScalarType::uint8;  // as delivered
  bool swap_bytes = false;                // stored in the other byte order
  int64_t offset = 0;                     // bytes from the start of the record
  std::vector<int64_t> shape = {};        // of one record's field; empty for a scalar

  int64_t num_elements() const;
};

// Record i of a file lies at `header_bytes + i * record_stride`. Records may overlap (windows of a
// token stream) or have gaps.
struct RecordLayout {
  std::vector<Field> fields = {};
  int64_t record_bytes = 0;
  int64_t record_stride = 0;

  // Throws Error(config): no fields, a field outside of the record, sizes that overflow, a
  // conversion that there is none of (of floats to integers, for instance).
  void validate() const;
};

// Whether a strided tensor can view the field wherever the record lies: address and strides must be
// multiples of the element size. `first_row_bytes` is where the first record lies, in the file or
// from an aligned address.
bool can_view(const RecordLayout& layout, const Field& field, int64_t first_row_bytes);

// Bytes of the field for `count` records, packed, as delivered.
int64_t output_bytes(const Field& field, int64_t count);

// Copies the field of `count` records that begin at `rows`, `row_stride` bytes apart, to `out`,
// packed: byte order and element type are converted on the way.
void copy_field(const Field& field, const std::byte* rows, int64_t row_stride, int64_t count,
                std::byte* out);

// The same of `count` elements of the field's type that follow each other, whatever its shape.
void copy_elements(const Field& field, const std::byte* in, int64_t count, std::byte* out);

}  // namespace s3io
