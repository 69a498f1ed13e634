// The CRC-32C of a whole file: several reads in flight, so that the disk sets the pace.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/read_queue.h"
#include "store/checksum_text.h"
#include "store/object_store.h"

namespace s3io {

struct ChecksumOptions {
  DirectMode direct = DirectMode::automatic;
  EngineKind engine = EngineKind::automatic;
  int64_t min_alignment = 0;
  double timeout_s = 30;  // longest wait without progress
};

// Reads the file. Throws Error naming the path, also when the file changes meanwhile.
FileChecksum checksum_of_file(const std::string& path, const ChecksumOptions& options,
                              const WaitCallback& on_wait);

// The checksum that the file keeps in its attribute (checksum_text.h). Nothing where there is none,
// or where it is of another size than the file has: then the file was changed by other means.
std::optional<uint32_t> kept_checksum(const std::string& path);

}  // namespace s3io
