// The header of a .npy file, as numpy writes those of plain types.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace s3io {

struct NpyHead {
  static constexpr size_t kMostAxes = 64;  // as numpy has

  std::string_view type =
      {};  // its name, such as "<f4"; whether there is such a type is not looked at
  size_t axes = 0;
  std::array<int64_t, kMostAxes> shape = {};
  int64_t header_bytes = 0;  // behind which the elements begin
};

// `begin`: the first bytes of the file. Nothing for any other header: of another version, of
// structures, in Fortran order, longer than `begin`, or wrong. format/npy.py knows all of them.
std::optional<NpyHead> parse_npy_head(std::span<const std::byte> begin);

}  // namespace s3io
