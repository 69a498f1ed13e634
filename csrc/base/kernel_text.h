// Small text files in which the kernel says something (/proc, /sys), and the numbers in them.
//
// Note: no streams, see error.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace s3io {

// The file, up to a few MiB of it; empty where it cannot be read.
std::string read_kernel_text(const std::string& path);

// The part of `text` before the next `separator`. `text` loses both. Nothing when it is empty.
std::optional<std::string_view> take_until(std::string_view& text, char separator);

// The whole number that `text` begins with, or that follows spaces there. Nothing where there is
// none ("max") or int64_t cannot hold it.
std::optional<int64_t> number_in(std::string_view text);

// The number behind `key` in the first line that begins with it.
std::optional<int64_t> number_after(std::string_view text, std::string_view key);

}  // namespace s3io
