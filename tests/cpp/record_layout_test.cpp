// Fields of records: what may be viewed, and copies that change byte order and type.
#include "format/record_layout.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

#include "testing.h"

namespace s3io::testing::record_layout_test {

RecordLayout one_field(Field field, int64_t record_bytes) {
  return {
      .fields = {std::move(field)}, .record_bytes = record_bytes, .record_stride = record_bytes};
}

// An element as a double: exact for what these tests store. Types by their names, not by the enum.
double value_of(std::string_view name, const std::byte* data) {
  const auto as = [data](auto value) {
    std::memcpy(&value, data, sizeof(value));
    return static_cast<double>(value);
  };
  if (name == "bool") return data[0] == std::byte{0} ? 0 : 1;
  if (name == "uint8") return as(uint8_t{});
  if (name == "int8") return as(int8_t{});
  if (name == "uint16") return as(uint16_t{});
  if (name == "int16") return as(int16_t{});
  if (name == "uint32") return as(uint32_t{});
  if (name == "int32") return as(int32_t{});
  if (name == "uint64") return as(uint64_t{});
  if (name == "int64") return as(int64_t{});
  if (name == "float32") return as(float{});
  if (name == "float64") return as(double{});
  FAIL("no such type: ", name);
  return 0;
}

void put_value(std::string_view name, double value, std::byte* data) {
  const auto put = [&](auto typed) { std::memcpy(data, &typed, sizeof(typed)); };
  if (name == "bool") put(static_cast<uint8_t>(value != 0 ? 0x80 : 0));  // any bit counts as true
  if (name == "uint8") put(static_cast<uint8_t>(value));
  if (name == "int8") put(static_cast<int8_t>(value));
  if (name == "uint16") put(static_cast<uint16_t>(value));
  if (name == "int16") put(static_cast<int16_t>(value));
  if (name == "uint32") put(static_cast<uint32_t>(value));
  if (name == "int32") put(static_cast<int32_t>(value));
  if (name == "uint64") put(static_cast<uint64_t>(value));
  if (name == "int64") put(static_cast<int64_t>(value));
  if (name == "float32") put(static_cast<float>(value));
  if (name == "float64") put(value);
}

const std::vector<std::string> kArithmetic{"bool",  "uint8",   "int8",   "uint16",
                                           "int16", "uint32",  "int32",  "uint64",
                                           "int64", "float32", "float64"};

TEST_CASE("names and sizes of element types belong together") {
  for (const ScalarTypeInfo& info : kScalarTypes) {
    const ScalarType type = scalar_type_named(std::string(info.name));
    CHECK(name_of(type) == info.name);
    CHECK(size_bytes(type) == info.size_bytes);
  }
  CHECK(caught([] { scalar_type_named("float128"); }).says("float128"));
  CHECK(size_bytes(scalar_type_named("complex128")) == 16);
  CHECK(size_bytes(scalar_type_named("bfloat16")) == 2);
}

TEST_CASE("any arithmetic type converts to any other, in either byte order, at any stride") {
  std::mt19937_64 random(60);
  const std::vector<double> values{0, 1, 2, 7, 42, 100, 127};  // every type but bool has them
  for (const std::string& source : kArithmetic) {
    for (const std::string& target : kArithmetic) {
      for (const bool swap : {false, true}) {
        const int64_t in_size = size_bytes(scalar_type_named(source));
        const int64_t out_size = size_bytes(scalar_type_named(target));
        const int64_t elements = 1 + static_cast<int64_t>(random() % 5);
        const int64_t offset = static_cast<int64_t>(random() % 4);  // unaligned more often than not
        const int64_t stride = offset + elements * in_size + static_cast<int64_t>(random() % 9);
        const int64_t rows = 7;
        Bytes in(static_cast<size_t>(rows * stride));
        Bytes out(static_cast<size_t>(rows * elements * out_size));
        std::vector<double> expected;
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t element = 0; element < elements; ++element) {
            const double value = values[random() % values.size()];
            std::byte* place = &in[static_cast<size_t>(row * stride + offset + element * in_size)];
            put_value(source, value, place);
            if (swap) std::reverse(place, place + in_size);
            const bool truth = source == "bool" || target == "bool";
            expected.push_back(truth ? (value != 0 ? 1 : 0) : value);
          }
        }
        const Field field{.type = scalar_type_named(source),
                          .output = scalar_type_named(target),
                          .swap_bytes = swap,
                          .offset = offset,
                          .shape = {elements}};
        copy_field(field, in.data(), stride, rows, out.data());
        for (size_t index = 0; index < expected.size(); ++index) {
          CHECK(value_of(target, &out[index * static_cast<size_t>(out_size)]) == expected[index]);
        }
        CHECK(output_bytes(field, rows) == static_cast<int64_t>(out.size()));
      }
    }
  }
}

TEST_CASE("negative numbers stay negative when they grow wider") {
  for (const std::string source : {"int8", "int16", "int32", "int64", "float32", "float64"}) {
    for (const std::string target : {"int8", "int16", "int32", "int64", "float32", "float64"}) {
      std::byte in[8];
      std::byte out[8];
      put_value(source, -100, in);
      copy_field({.type = scalar_type_named(source), .output = scalar_type_named(target)}, in, 8, 1,
                 out);
      CHECK(value_of(target, out) == -100);
    }
  }
}

TEST_CASE("swapping reverses each element, and each half of a complex number") {
  for (const auto& [name, unit] : std::vector<std::pair<std::string, int64_t>>{{"uint8", 1},
                                                                               {"int16", 2},
                                                                               {"bfloat16", 2},
                                                                               {"float64", 8},
                                                                               {"complex64", 4},
                                                                               {"complex128", 8}}) {
    const ScalarType type = scalar_type_named(name);
    const int64_t size = size_bytes(type);
    const Bytes in = random_bytes(3 * 6 * size, 61);
    Bytes expected = in;
    for (size_t begin = 0; begin < expected.size(); begin += static_cast<size_t>(unit)) {
      const auto first = expected.begin() + static_cast<std::ptrdiff_t>(begin);
      std::reverse(first, first + unit);
    }
    Bytes out(in.size());
    copy_field({.type = type, .output = type, .swap_bytes = true, .shape = {2, 3}}, in.data(),
               6 * size, 3, out.data());
    CHECK(out == expected);
  }
}

TEST_CASE(
    "a field is viewed only where every element of every record is aligned and in our order") {
  const auto views = [](int64_t offset, int64_t record_bytes, int64_t header_bytes, bool swap) {
    const Field field{.type = ScalarType::float32,
                      .output = ScalarType::float32,
                      .swap_bytes = swap,
                      .offset = offset};
    return can_view(one_field(field, record_bytes), field, header_bytes);
  };
  CHECK(views(0, 8, 0, false));
  CHECK(views(4, 8, 128, false));
  CHECK(views(1, 8, 3, false));  // header and offset together are a multiple
  CHECK_FALSE(views(1, 8, 0, false));
  CHECK_FALSE(views(0, 8, 2, false));
  CHECK_FALSE(views(0, 5, 0, false));
  CHECK_FALSE(views(0, 8, 0, true));
  const Field byte{.swap_bytes = true, .offset = 3};  // single bytes have no order
  CHECK(can_view(one_field(byte, 5), byte, 7));
  const Field cast{.type = ScalarType::uint16, .output = ScalarType::int64};
  CHECK_FALSE(can_view(one_field(cast, 8), cast, 0));
}

TEST_CASE("layouts that cannot be are refused, and the error names the field") {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  one_field({.name = "x", .offset = 3, .shape = {5}}, 8).validate();
  one_field({.name = "x", .shape = {0}}, 8).validate();
  const std::vector<Field> bad{
      {.name = "x", .offset = -1},
      {.name = "x", .offset = 8},
      {.name = "x", .offset = 4, .shape = {5}},
      {.name = "x", .shape = {-1}},
      {.name = "x", .shape = {kMost}},
      {.name = "x", .shape = {kMost, kMost}},
      {.name = "x", .shape = {int64_t{1} << 40, int64_t{1} << 40}},
      {.name = "x", .shape = {0, int64_t{1} << 40, int64_t{1} << 40}},  // its strides overflow
      {.name = "x", .shape = std::vector<int64_t>(64, 1)},
      {.name = "x", .type = ScalarType::float32, .output = ScalarType::int8},
      {.name = "x", .type = ScalarType::float16, .output = ScalarType::boolean},
      {.name = "x", .offset = kMost},
      {.name = "x", .type = ScalarType::float64, .output = ScalarType::float64, .offset = 1},
      {.name = "x", .type = ScalarType::complex64},
      {.name = "x", .output = ScalarType::complex64}};
  for (const Field& field : bad) {
    const Caught error = caught([&] { one_field(field, 8).validate(); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("'x'"));
  }
  CHECK(caught([] { RecordLayout{}.validate(); }).kind == ErrorKind::config);
  for (const int64_t bytes : {int64_t{0}, int64_t{-1}, kMost}) {
    CHECK(caught([&] { one_field({}, bytes).validate(); }).kind == ErrorKind::config);
    RecordLayout layout = one_field({}, 8);
    layout.record_stride = bytes;
    CHECK(caught([&] { layout.validate(); }).kind == ErrorKind::config);
  }
}

}  // namespace s3io::testing::record_layout_test
