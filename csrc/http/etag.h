// ETags, as the numbers that data sets keep of their objects' versions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/range_reader.h"

namespace s3io {

// Tells ETags from each other; never negative.
int64_t etag_number(std::string_view etag);

// The version of an object. Of an ETag as S3 makes them, which is an MD5 and, where it was written
// in parts, their number, `device` and `inode` are the MD5, and the lowest bits of the number count
// the parts. So it can be made again.
ObjectVersion version_of(int64_t size_bytes, std::string_view etag);

// The ETag of this version; empty where it is another kind of text.
std::string etag_of(const ObjectVersion& version);

}  // namespace s3io
