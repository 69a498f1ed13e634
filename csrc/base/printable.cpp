#include "base/printable.h"

namespace s3io {

std::string quoted(std::string_view text) {
  constexpr size_t kMost = 120;
  constexpr char kDigits[] = "0123456789abcdef";
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

}  // namespace s3io
