// The CRC-32C of a whole object: several reads in flight, so that the disk sets the pace.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "store/checksum_text.h"
#include "store/store.h"

namespace s3io {

// Reads the object, giving up when for so long nothing came. Throws Error naming the path, also
// when the object changes meanwhile.
FileChecksum checksum_of_object(Store& store, const std::shared_ptr<Object>& object,
                                double timeout_s, const WaitCallback& on_wait);

// The checksum that the file keeps in its attribute (checksum_text.h). Nothing where there is none,
// or where it is of another size than the file has: then the file was changed by other means.
std::optional<uint32_t> kept_checksum(const std::string& path);

}  // namespace s3io
