// Element types, by the names that torch gives them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace s3io {

enum class ScalarType : uint8_t {
  boolean,
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  uint64,
  int64,
  float16,
  bfloat16,
  float32,
  float64,
  complex64,
  complex128,
  float8_e4m3fn,
  float8_e5m2,
  float8_e4m3fnuz,
  float8_e5m2fnuz,
};

struct ScalarTypeInfo {
  std::string_view name;
  int64_t size_bytes;
};

inline constexpr std::array<ScalarTypeInfo, 19> kScalarTypes{{
    {"bool", 1},
    {"uint8", 1},
    {"int8", 1},
    {"uint16", 2},
    {"int16", 2},
    {"uint32", 4},
    {"int32", 4},
    {"uint64", 8},
    {"int64", 8},
    {"float16", 2},
    {"bfloat16", 2},
    {"float32", 4},
    {"float64", 8},
    {"complex64", 8},
    {"complex128", 16},
    {"float8_e4m3fn", 1},
    {"float8_e5m2", 1},
    {"float8_e4m3fnuz", 1},
    {"float8_e5m2fnuz", 1},
}};

inline int64_t size_bytes(ScalarType type) {
  return kScalarTypes[static_cast<size_t>(type)].size_bytes;
}

inline std::string_view name_of(ScalarType type) {
  return kScalarTypes[static_cast<size_t>(type)].name;
}

inline ScalarType scalar_type_named(const std::string& name) {
  for (size_t index = 0; index < kScalarTypes.size(); ++index) {
    if (kScalarTypes[index].name == name) return static_cast<ScalarType>(index);
  }
  throw Error(ErrorKind::config, message("dtype ", name, " is not supported"));
}

}  // namespace s3io
