#include "base/printable.h"

namespace s3io {
namespace {

// As Python writes them.
void append_escape(std::string& text, unsigned char value) {
  constexpr char kDigits[] = "0123456789abcdef";
  switch (value) {
    case '\n':
      text += "\\n";
      return;
    case '\r':
      text += "\\r";
      return;
    case '\t':
      text += "\\t";
      return;
    default:
      text += {'\\', 'x', kDigits[value >> 4], kDigits[value & 15]};
  }
}

}  // namespace

std::string quoted(std::string_view text) {
  constexpr size_t kMost = 120;
  std::string shown = "'";
  for (const char character : text.substr(0, kMost)) {
    const auto value = static_cast<unsigned char>(character);
    if (value >= 0x20 && value < 0x7f && character != '\'' && character != '\\') {
      shown += character;
    } else {
      append_escape(shown, value);
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
      append_escape(shown, value);
    }
  }
  return shown;
}

}  // namespace s3io
