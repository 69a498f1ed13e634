// io_uring as this build has it: from uring_engine.cpp, or from no_uring.cpp where liburing was
// left out. The build takes one of the two files, and nothing else differs.
#pragma once

#include <memory>

#include "io/io_engine.h"

namespace s3io {

extern const bool kBuiltWithUring;

// Throws Error(engine) when this build has no io_uring or the kernel refuses a ring.
std::unique_ptr<IoEngine> make_uring_engine(const EngineOptions& options);

}  // namespace s3io
