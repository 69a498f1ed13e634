#include "base/characters.h"

#include <algorithm>

namespace s3io {
namespace {

// Bytes that the first one of a character announces; 0: it begins none.
size_t length_of_character(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first < 0xE0) return 2;
  if (first >= 0xE0 && first < 0xF0) return 3;
  return first >= 0xF0 && first < 0xF5 ? 4 : 0;
}

bool is_character(char32_t value, size_t length) {
  const bool is_surrogate = value >= 0xD800 && value < 0xE000;
  const bool is_too_long = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  return !is_surrogate && !is_too_long && value <= 0x10FFFF;
}

}  // namespace

char32_t next_character(std::string_view text, size_t& at) {
  const auto first = static_cast<unsigned char>(text[at]);
  const size_t length = length_of_character(first);
  const std::string_view rest = text.substr(at + 1, std::max<size_t>(length, 1) - 1);
  ++at;
  if (length == 1) return first;
  const auto is_tail = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; };
  char32_t value = first & (0xFFU >> (length + 1));
  for (const char byte : rest) value = (value << 6) | (static_cast<unsigned char>(byte) & 0x3F);
  if (length == 0 || rest.size() + 1 < length || !std::ranges::all_of(rest, is_tail) ||
      !is_character(value, length)) {
    return char32_t{0xDC00} + first;
  }
  at += rest.size();
  return value;
}

}  // namespace s3io
