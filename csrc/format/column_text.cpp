#include "format/column_text.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "base/characters.h"
#include "base/error.h"

namespace s3io {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

void append_escape(std::string& text, char32_t unit) {
  text += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) text += kHexDigits[(unit >> shift) & 0xF];
}

void append_character(std::string& text, char32_t character) {
  constexpr std::string_view kNamed = "\"\\\b\f\n\r\t";
  constexpr std::string_view kLetters = "\"\\bfnrt";
  const size_t named = character < 0x80 ? kNamed.find(static_cast<char>(character)) : kNamed.npos;
  if (named != std::string_view::npos) {
    text += '\\';
    text += kLetters[named];
  } else if (character >= 0x20 && character < 0x7F) {
    text += static_cast<char>(character);
  } else if (character < 0x10000) {
    append_escape(text, character);
  } else {
    append_escape(text, 0xD800 + ((character - 0x10000) >> 10));
    append_escape(text, 0xDC00 + ((character - 0x10000) & 0x3FF));
  }
}

// Bytes at the start that JSON has as they are.
size_t count_plain(std::string_view text) {
  const auto is_other = [](char byte) {
    return byte < 0x20 || byte == 0x7F || byte == '"' || byte == '\\';  // of UTF-8: negative
  };
  return static_cast<size_t>(std::ranges::find_if(text, is_other) - text.begin());
}

std::string_view name_at(const ObjectNames& names, std::span<const int64_t> left_out,
                         int64_t number) {
  const std::string_view name = names[number];
  const int64_t bytes = left_out[static_cast<size_t>(number)];
  if (bytes < 0 || bytes > std::ssize(name)) {
    throw Error(ErrorKind::config, "more of a name is left out than it has");
  }
  return name.substr(static_cast<size_t>(bytes));
}

}  // namespace

std::string json_lines(const ObjectNames& names, std::span<const int64_t> left_out, int64_t first,
                       int64_t last) {
  std::string text;
  for (int64_t number = first; number < last; ++number) {
    const std::string_view name = name_at(names, left_out, number);
    text += '"';
    for (size_t at = 0; at < name.size();) {
      const size_t plain = count_plain(name.substr(at));
      text += name.substr(at, plain);
      at += plain;
      if (at < name.size()) append_character(text, next_character(name, at));
    }
    text += "\"\n";
  }
  return text;
}

int64_t count_repeated(const ObjectNames& names, std::span<const int64_t> left_out) {
  std::vector<std::pair<size_t, int64_t>> hashed;
  hashed.reserve(static_cast<size_t>(names.count()));
  for (int64_t number = 0; number < names.count(); ++number) {
    const std::string_view name = name_at(names, left_out, number);
    hashed.emplace_back(std::hash<std::string_view>()(name), number);
  }
  std::ranges::sort(hashed);
  int64_t repeated = 0;
  for (size_t begin = 0; begin < hashed.size();) {
    size_t end = begin + 1;
    while (end < hashed.size() && hashed[end].first == hashed[begin].first) ++end;
    std::vector<std::string_view> equal;
    for (size_t place = begin; end - begin > 1 && place < end; ++place) {
      equal.push_back(name_at(names, left_out, hashed[place].second));
    }
    std::ranges::sort(equal);
    repeated += std::ssize(equal) - (std::unique(equal.begin(), equal.end()) - equal.begin());
    begin = end;
  }
  return repeated;
}

}  // namespace s3io
