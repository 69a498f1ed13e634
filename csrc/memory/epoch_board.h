// Where the next iteration of a data set begins, in memory that its workers see: the epoch and the
// position within it.
//
// The main process sets it; every worker reads it when it begins to iterate, and leaves a mark. So
// `set_epoch` reaches workers that are alive already, whichever way they were started. The marks
// tell the main process that its workers have begun, and a worker that it begins the same epoch
// anew.
//
// A page of its own rather than a part of the arena: data sets without a pool have workers, too.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/unique_fd.h"
#include "memory/shared_memory.h"

namespace s3io {

class EpochBoard {
 public:
  // Workers with a higher number leave no marks of their own.
  static constexpr int64_t kWorkers = 4096;

  struct Position {
    int64_t epoch = 0;
    int64_t start = 0;    // the first position of the epoch that is still to come
    uint64_t change = 0;  // how often the board was set
  };
  struct PickUp {
    Position position;
    bool repeated = false;  // a worker of this number has begun here since the last change
  };

  // Throws Error(out_of_memory).
  EpochBoard();
  // The board of another process, over its descriptor.
  explicit EpochBoard(UniqueFd fd);

  int fd() const { return fd_.get(); }

  // The process that made it, one thread at a time.
  void set(int64_t epoch, int64_t start);
  // How many workers have begun here since the last change.
  int64_t pick_ups() const;

  // Any process. Throws Error(data) when the main process died while it was setting it.
  Position read() const;
  PickUp pick_up(int64_t worker);
  // True for the first caller of all processes: who warns.
  bool warn_once() { return page_->warned.exchange(1) == 0; }

 private:
  struct Page {
    std::atomic<uint64_t> version;  // odd while it is being set
    std::atomic<int64_t> epoch;
    std::atomic<int64_t> start;
    std::atomic<uint64_t> pick_ups;  // bits 63..32: of which change; 31..0: how many
    std::atomic<uint32_t> warned;
    std::array<std::atomic<uint64_t>, kWorkers> begun;  // by worker: 1 + the change it began at
  };
  static_assert(sizeof(Page) <= 2 << 20);

  const UniqueFd fd_;
  const SharedMapping memory_;
  Page* const page_;
};

}  // namespace s3io
