// CRC-32C (Castagnoli), as iSCSI (RFC 3720, appendix B.4), ext4 and most object stores use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace s3io {

// The checksum of what `crc` is the checksum of, followed by `data`; begin with 0. Uses the
// processor's instruction where it has one (SSE 4.2, ARMv8), else tables.
uint32_t crc32c(uint32_t crc, std::span<const std::byte> data);

// The same by tables alone, whatever the processor.
uint32_t crc32c_by_tables(uint32_t crc, std::span<const std::byte> data);

// The checksum of two parts, one behind the other, of which these are the checksums. Takes as long
// as `second_bytes` has bits.
uint32_t crc32c_of_both(uint32_t first, uint32_t second, int64_t second_bytes);

// "sse4.2", "armv8" or "tables": what crc32c uses here.
const char* crc32c_method();

}  // namespace s3io
