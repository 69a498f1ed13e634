// Checksums that files keep in an attribute: whatever is there is what we write, or nothing.
#include "store/checksum_text.h"

#include <cinttypes>

#include "engine/input.h"

namespace s3io::fuzz {
namespace {

std::string written(const FileChecksum& checksum) {
  char text[64];
  std::snprintf(text, sizeof(text), "%08" PRIx32 " %" PRId64, checksum.crc32c, checksum.size_bytes);
  return text;
}

void read(Input& input) {
  const FileChecksum given{input.between(0, std::numeric_limits<int64_t>::max()),
                           static_cast<uint32_t>(input.bits())};
  require(parse_checksum(written(given)) == given);
  const std::string text = input.rest();
  const auto found = parse_checksum(text);
  require(!found || (found->size_bytes >= 0 && written(*found) == text));
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
