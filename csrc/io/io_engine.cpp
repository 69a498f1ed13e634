#include "io/io_engine.h"

#include <fcntl.h>

#include "base/error.h"
#include "base/unique_fd.h"
#include "io/thread_engine.h"
#include "io/uring.h"

namespace s3io {
namespace {

constexpr int kMaxDepth = 4096;

void read_through(IoEngine& engine) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  alignas(64) std::byte byte[64];
  IoRequest request{.fd = file.get(), .data = byte, .offset = 0, .length = sizeof(byte)};
  IoRequest* pointer = &request;
  engine.submit({&pointer, 1});
  IoRequest* done = nullptr;
  const Clock::time_point deadline = deadline_after(10);
  while (engine.wait({&done, 1}, 1, milliseconds(1000)) == 0) {
    if (Clock::now() > deadline) {
      throw Error(ErrorKind::engine, "io_uring is not available: a test read did not come back");
    }
  }
  if (request.result < 0) {
    throw Error(ErrorKind::engine, message("io_uring is not available: a test read failed with ",
                                           errno_text(static_cast<int>(-request.result))));
  }
}

// Some sandboxes let a ring be made and then refuse its use, so read a few bytes through it. Throws
// Error(engine).
void probe(IoEngine& engine) {
  try {
    read_through(engine);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::engine) throw;
    throw Error(ErrorKind::engine, message("io_uring is not available: ", error.what()));
  }
}

}  // namespace

EngineKind parse_engine_kind(const std::string& name) {
  if (name == "auto") return EngineKind::automatic;
  if (name == "uring") return EngineKind::uring;
  if (name == "threads") return EngineKind::threads;
  throw Error(ErrorKind::config,
              message("engine must be 'auto', 'uring' or 'threads', not '", name, "'"));
}

std::unique_ptr<IoEngine> make_engine(const EngineOptions& options, std::string* fallback_reason) {
  if (options.depth < 1 || options.depth > kMaxDepth) {
    throw Error(ErrorKind::config, message("the number of reads in flight must be between 1 and ",
                                           kMaxDepth, ", not ", options.depth));
  }
  if (options.kind == EngineKind::threads) return std::make_unique<ThreadEngine>(options);
  try {
    std::unique_ptr<IoEngine> engine = make_uring_engine(options);
    probe(*engine);
    return engine;
  } catch (const Error& error) {
    if (options.kind == EngineKind::uring || error.kind() != ErrorKind::engine) throw;
    if (fallback_reason != nullptr) *fallback_reason = error.what();
  }
  return std::make_unique<ThreadEngine>(options);
}

std::string uring_unavailable_reason() {
  try {
    probe(*make_uring_engine({.kind = EngineKind::uring, .depth = 1}));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace s3io
