#include "memory/shared_block.h"

#include <atomic>

#include "base/align.h"

namespace s3io {
namespace {

std::atomic<int64_t> blocks{0};

}  // namespace

int64_t SharedBlock::count() { return blocks.load(std::memory_order_relaxed); }

SharedBlock::SharedBlock(int64_t size_bytes)
    : fd_(make_memory_file(size_bytes)),
      memory_(fd_.get(), 0, size_bytes, align_up(size_bytes, kPageBytes)) {
  for (int64_t end = kHugePageBytes; end <= size_bytes; end += kHugePageBytes) {
    memory_.prepare_huge_page(end - kHugePageBytes);
  }
  blocks.fetch_add(1, std::memory_order_relaxed);
}

SharedBlock::~SharedBlock() { blocks.fetch_sub(1, std::memory_order_relaxed); }

}  // namespace s3io
