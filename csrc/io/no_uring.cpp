#include "base/error.h"
#include "io/uring.h"

namespace s3io {

const bool kBuiltWithUring = false;

std::unique_ptr<IoEngine> make_uring_engine(const EngineOptions&) {
  throw Error(
      ErrorKind::engine,
      "io_uring is not available: this build of torch_s3io was made without liburing; install "
      "that and build it again, or say engine='threads'");
}

}  // namespace s3io
