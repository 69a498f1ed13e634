#include "base/printable.h"

namespace s3io {
namespace {

constexpr char kDigits[] = "0123456789abcdef";

}  // namespace

std::string quoted(std::string_view text) {
  constexpr size_t kMost = 120;
  std::string shown = "'";
  for (const char character : text.substr(0, kMost)) {
    const auto value = static_cast<unsigned char>(character);
    if (value >= 0x20 && value < 0x7f && character != '\'' && character != '\\') {
      shown += character;
    } else {
      shown += {'\\', 'x', kDigits[value >> 4], kDigits[value & 15]};
    }
  }
  shown += text.size() > kMost ? "...'" : "'";
  return shown;
}

std::string on_one_line(std::string_view text) {
  std::string shown;
  for (const char character : text) {
    const auto value = static_cast<unsigned char>(character);
    if (value >= 0x20 && value != 0x7f) {
      shown += character;
    } else {
      shown += {'\\', 'x', kDigits[value >> 4], kDigits[value & 15]};
    }
  }
  return shown;
}

}  // namespace s3io
