#include "format/batch_form.h"

#include <algorithm>

#include "base/error.h"

namespace s3io {

int64_t checked_alignment(int64_t alignment) {
  constexpr int64_t kMost = int64_t{2} << 20;
  if (!is_power_of_two(alignment) || alignment > kMost) {
    throw Error(ErrorKind::config,
                message("alignment must be a power of two of at most 2 MiB, not ", alignment));
  }
  return alignment == 1 ? 1 : std::max(alignment, kFieldAlignment);
}

}  // namespace s3io
