#include "format/npy_head.h"

#include <charconv>

namespace s3io {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kNpyMagic = "\x93NUMPY\x01\0"sv;  // of version 1
constexpr size_t kNpyStartBytes = 10;                        // magic, and two bytes of a length
constexpr int64_t kMostNpyExtent = int64_t{1} << 62;

bool take_text(std::string_view& text, std::string_view expected) {
  if (!text.starts_with(expected)) return false;
  text.remove_prefix(expected.size());
  return true;
}

bool is_of_type_name(char character) {
  return (character >= 'A' && character <= 'Z') || (character >= 'a' && character <= 'z') ||
         (character >= '0' && character <= '9') || character == '<' || character == '>' ||
         character == '|' || character == '?';
}

bool take_type(std::string_view& text, std::string_view& type) {
  size_t length = 0;
  while (length < text.size() && is_of_type_name(text[length])) ++length;
  type = text.substr(0, length);
  text.remove_prefix(length);
  return length > 0;
}

bool take_extent(std::string_view& text, int64_t& extent) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, extent);
  const auto digits = static_cast<size_t>(stop - text.data());
  const bool is_as_written = digits == 1 || (digits > 1 && text[0] >= '1' && text[0] <= '9');
  if (error != std::errc() || !is_as_written || extent >= kMostNpyExtent) return false;
  text.remove_prefix(digits);
  return true;
}

// "()", "(3,)" or "(3, 4)".
bool take_shape(std::string_view& text, NpyHead& head) {
  if (take_text(text, "()")) return true;
  if (!take_text(text, "(")) return false;
  do {
    if (head.axes == NpyHead::kMostAxes || !take_extent(text, head.shape[head.axes])) return false;
    ++head.axes;
  } while (take_text(text, ", "));
  return take_text(text, head.axes == 1 ? ",)" : ")");
}

}  // namespace

std::optional<NpyHead> parse_npy_head(std::span<const std::byte> begin) {
  std::string_view text(reinterpret_cast<const char*>(begin.data()), begin.size());
  if (text.size() < kNpyStartBytes || !text.starts_with(kNpyMagic)) return std::nullopt;
  const size_t length = static_cast<uint8_t>(text[8]) + size_t{256} * static_cast<uint8_t>(text[9]);
  if (length > text.size() - kNpyStartBytes) return std::nullopt;
  text = text.substr(kNpyStartBytes, length);
  NpyHead head{.header_bytes = static_cast<int64_t>(kNpyStartBytes + length)};
  if (!take_text(text, "{'descr': '") || !take_type(text, head.type) ||
      !take_text(text, "', 'fortran_order': False, 'shape': ") || !take_shape(text, head) ||
      !take_text(text, ", }")) {
    return std::nullopt;
  }
  const size_t blanks = text.find_first_not_of(' ');
  if (blanks == std::string_view::npos || text.substr(blanks) != "\n") return std::nullopt;
  return head;
}

}  // namespace s3io
