// Parts of a file that are put together from pieces, as samples are from their fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "store/byte_writer.h"

namespace s3io {

// Bytes, and where they go in the file.
struct FilePiece {
  int64_t begin = 0;
  std::span<const std::byte> data;
};

// The bytes [begin, end) of the file: some pieces, in the order of their places, and zeros.
struct FilePart {
  int64_t begin = 0;
  int64_t end = 0;
  size_t num_pieces = 0;
};

// Appends the parts, with zeros up to the first one and between them; `pieces` are those of all
// parts. Gives the CRC-32C of each part. Every byte is copied once, and summed while it is in the
// cache. Throws Error(config), before anything is written, where one begins before the end of what
// is there, or a part does not have room for its pieces; else as `ByteWriter::write`.
std::vector<uint32_t> write_parts(ByteWriter& writer, std::span<const FilePart> parts,
                                  std::span<const FilePiece> pieces, const WaitCallback& on_wait);

}  // namespace s3io
