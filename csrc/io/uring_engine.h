// Reads and writes through io_uring: one ring, submissions and completions in batches.
#pragma once

#include <liburing.h>

#include <vector>

#include "base/unique_fd.h"
#include "io/io_engine.h"

namespace s3io {

class UringEngine final : public IoEngine {
 public:
  // Throws Error(engine) when the kernel refuses a ring.
  explicit UringEngine(const EngineOptions& options);
  ~UringEngine() override;

  int depth() const override { return depth_; }
  void submit(std::span<IoRequest* const> requests) override;
  int wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) override;
  bool register_buffer(int index, std::span<std::byte> memory) override;
  std::string_view name() const override { return "uring"; }
  int ready_fd() override;

 private:
  void prepare(io_uring_sqe* sqe, const IoRequest& request) const;
  int submit_and_wait(unsigned count, milliseconds timeout);
  int reap(std::span<IoRequest*> done);

  io_uring ring_{};
  int depth_;
  int in_flight_ = 0;
  int unsubmitted_ = 0;  // prepared, and handed to the kernel by the next wait
  bool can_register_ = false;
  bool can_signal_ = true;
  UniqueFd ready_;  // an eventfd, since somebody asked for it: every completion adds to it
  std::vector<bool> registered_;
};

}  // namespace s3io
