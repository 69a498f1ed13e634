// Names of a data set as text, by which data sets are told apart.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "format/object_names.h"

namespace s3io {

// Some names, from `first` to before `last`, without the first bytes of each: a line for each, as
// Python's json.dumps writes the text that os.fsdecode makes of it.
std::string json_lines(const ObjectNames& names, std::span<const int64_t> left_out, int64_t first,
                       int64_t last);

// How many names there are that one before them is equal to; without the first bytes of each.
int64_t count_repeated(const ObjectNames& names, std::span<const int64_t> left_out);

}  // namespace s3io
