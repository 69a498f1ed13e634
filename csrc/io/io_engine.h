// The seam between the library and the kernel: positioned reads and writes, many in flight,
// completions in any order.
//
// An engine reports raw results: a request may come back short, or fail with any errno; resuming
// and retrying is the business of ReadQueue and WriteQueue, so that a FaultEngine in between can
// test it. One thread uses an engine, the one that made it; with `EngineOptions::any_thread`, one
// thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace s3io {

// How often a request that the kernel asks to make again (EINTR, EAGAIN) is made.
inline constexpr int kMaxAttempts = 100;

enum class IoOperation : uint8_t { read, write };

// One positioned read or write. The caller owns it and keeps it, and the memory it points to, until
// the engine returns it from `wait`.
struct IoRequest {
  IoOperation operation = IoOperation::read;
  int fd = -1;
  std::byte* data = nullptr;  // a write leaves it as it is
  int64_t offset = 0;
  uint32_t length = 0;
  int buffer_index = -1;  // number given to register_buffer, or -1
  int64_t result = 0;     // out: bytes read or written, or -errno
};

class IoEngine {
 public:
  IoEngine() = default;
  IoEngine(const IoEngine&) = delete;
  IoEngine& operator=(const IoEngine&) = delete;
  virtual ~IoEngine() = default;

  // Most requests that may be in flight at once.
  virtual int depth() const = 0;
  // Starts the requests; at most depth() may then be in flight.
  virtual void submit(std::span<IoRequest* const> requests) = 0;
  // Waits until `min_count` >= 1 requests have completed, `timeout` is over or a
  // signal came, and stores up to done.size() of them. Returns how many.
  virtual int wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) = 0;

  // Tells the kernel about memory that many requests will use. False where the limits forbid it
  // (RLIMIT_MEMLOCK): everything then works without. `index` is below `kMaxBuffers`.
  static constexpr int kMaxBuffers = 1024;
  virtual bool register_buffer(int index, std::span<std::byte> memory) = 0;

  // "uring" or "threads"; what statistics report.
  virtual std::string_view name() const = 0;
  // A descriptor that poll(2) finds readable when `wait` would find a request that has completed;
  // -1: there is none.
  virtual int ready_fd() { return -1; }
};

enum class EngineKind : uint8_t { automatic, uring, threads };

// "auto", "uring", "threads". Throws Error(config) for anything else.
EngineKind parse_engine_kind(const std::string& name);

struct EngineOptions {
  EngineKind kind = EngineKind::automatic;
  int depth = 64;
  bool any_thread = false;  // else only the thread that makes the engine may use it
};

// `automatic` probes io_uring by doing a read, and falls back to threads: `fallback_reason` then
// says why. Throws Error(engine) when `uring` was asked for and is not to be had; the text says
// why.
std::unique_ptr<IoEngine> make_engine(const EngineOptions& options,
                                      std::string* fallback_reason = nullptr);

// Empty if io_uring works here, else the reason why not.
std::string uring_unavailable_reason();

}  // namespace s3io
