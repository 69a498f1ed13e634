// The seam between objects in which each header says where the next one lies, such as archives and
// files of framed records, and those who read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_range.h"

namespace s3io {

// Follows the headers of one object, without I/O: it says which bytes it wants to see, is given
// them, and has found all parts of the object when it wants no more. One thread at a time.
//
// It believes nothing that the bytes say: each range that it wants lies within the object, behind
// the ones before, and no memory is taken for what is not there.
class HeaderChain {
 public:
  // Most bytes that it wants at once.
  static constexpr int64_t kMostBytes = int64_t{1} << 20;

  HeaderChain() = default;
  HeaderChain(const HeaderChain&) = delete;
  HeaderChain& operator=(const HeaderChain&) = delete;
  virtual ~HeaderChain() = default;

  // Length 0: it is at its end.
  ByteRange wanted() const { return wanted_; }
  // Exactly the bytes that it wants. Throws Error(data) with the path, the offset, what is wrong
  // there and what to do; the chain is then of no more use.
  virtual void take(std::span<const std::byte> bytes) = 0;

 protected:
  ByteRange wanted_;
};

}  // namespace s3io
