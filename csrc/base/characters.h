// The characters of a text in UTF-8, in which other bytes may be.
#pragma once

#include <cstddef>
#include <string_view>

namespace s3io {

// The character that begins at `at`, which goes on behind it. A byte that is part of none becomes
// one of U+DC80 to U+DCFF, as in Python's os.fsdecode.
char32_t next_character(std::string_view text, size_t& at);

}  // namespace s3io
