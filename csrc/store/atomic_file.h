// Writes a file whole or not at all.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace s3io {

// Writes to a temporary name in the same folder, then renames: readers see the old file or the new
// one, and an interrupted write leaves the old one. With `sync` the bytes, and the name, are on the
// device on return. Throws Error naming the path; the temporary file is then removed.
void write_file_atomically(const std::string& path, std::span<const std::byte> data, bool sync);

}  // namespace s3io
