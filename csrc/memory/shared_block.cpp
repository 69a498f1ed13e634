#include "memory/shared_block.h"

#include "base/align.h"

namespace s3io {

SharedBlock::SharedBlock(int64_t size_bytes)
    : fd_(make_memory_file(size_bytes)),
      memory_(fd_.get(), 0, size_bytes, align_up(size_bytes, kPageBytes)) {
  for (int64_t end = kHugePageBytes; end <= size_bytes; end += kHugePageBytes) {
    memory_.prepare_huge_page(end - kHugePageBytes);
  }
}

}  // namespace s3io
