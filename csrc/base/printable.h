// Foreign text within a sentence.
#pragma once

#include <string>
#include <string_view>

namespace s3io {

// The text in quotes, as one short line: control characters, quotes and bytes beyond ASCII become
// escapes such as "\n" and "\x1b", and of a long text the beginning is shown.
std::string quoted(std::string_view text);

// The text as it is, and whole, but with escapes for control characters.
std::string on_one_line(std::string_view text);

}  // namespace s3io
