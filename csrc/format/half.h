// Floats of 16 bits, which C++20 has no types for: IEEE's and the upper half of a float32. They are
// converted by way of float32, rounded to the nearest (even where two are), as torch does it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace s3io {

struct BFloat16 {
  uint16_t bits;

  static BFloat16 from_float(float value) {
    if (std::isnan(value)) return {0x7fc0};
    const auto word = std::bit_cast<uint32_t>(value);
    return {static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16)};
  }
  float to_float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};

// 1 sign, 5 exponent and 10 fraction bits.
struct Float16 {
  uint16_t bits;

  static Float16 from_float(float value) {
    const auto word = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>(word >> 16 & 0x8000);
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7e00)};
    if (magnitude >= 65520.0F) return {static_cast<uint16_t>(sign | 0x7c00)};  // infinite
    if (magnitude < 0x1p-14F) {
      // In units of the smallest number, 2^-24. Adding 2^23 leaves no bit for a fraction, so it
      // rounds; what it rounds up to 2^-14 has the right bits as well.
      const float units = magnitude * 0x1p24F + 0x1p23F;
      return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(units) & 0x7fff))};
    }
    const uint32_t rounded = (word & 0x7fffffff) + 0xfff + (word >> 13 & 1);
    return {static_cast<uint16_t>(sign | ((rounded >> 13) - (uint32_t{127 - 15} << 10)))};
  }
  float to_float() const {
    const uint32_t sign = uint32_t{bits} << 16 & 0x80000000;
    const uint32_t exponent = bits >> 10 & 0x1f;
    const uint32_t fraction = bits & 0x3ff;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
      return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 0x1f ? 0xff : exponent + (127 - 15);
    return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
  }
};

}  // namespace s3io
