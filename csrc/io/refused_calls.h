// Which system calls that have a substitute are refused here, for who asks why something is slow.
#pragma once

#include <string>
#include <vector>

namespace s3io {

struct RefusedCall {
  std::string name;
  int error_number = 0;
};

// Tries statx, memfd_create, cachestat and preadv2, on files of the kernel's.
std::vector<RefusedCall> refused_calls();

}  // namespace s3io
