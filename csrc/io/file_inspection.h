// What the kernel says of many files, each by its path.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "io/direct_file.h"

namespace s3io {

// Asked by so many threads at once. `progress` gets the number of files that are done; what it
// throws ends it. Throws what `inspect_file` throws of the first one that it throws of.
void inspect_files(std::span<const std::string> paths, std::span<FileInfo> out, int threads,
                   const std::function<void(int64_t)>& progress);

// The first folder that has another time of change than it had, or is gone; -1: none.
int64_t find_changed_folder(std::span<const std::string_view> paths,
                            std::span<const int64_t> modified_ns, int threads);

}  // namespace s3io
