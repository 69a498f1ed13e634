// Where the next iteration of a data set begins, in memory that its workers see: the epoch and the
// position within it.
//
// The main process sets it; every worker reads it when it begins to iterate, and leaves a mark. So
// `set_epoch` reaches workers that are alive already, whichever way they were started. The marks
// tell the main process that its workers have begun, and a worker that it begins the same epoch
// anew.
//
// Workers also add what they count to notes on it, so that the main process knows the sums, and of
// workers that are gone.
//
// A page of its own rather than a part of the arena: data sets without a pool have workers, too.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"
#include "memory/shared_memory.h"

namespace s3io {

class EpochBoard {
 public:
  // Workers with a higher number leave no marks of their own.
  static constexpr int64_t kWorkers = 4096;
  static constexpr size_t kNotes = 64;

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
  // The board of another process, over its descriptor. Throws Error(out_of_memory), Error(data).
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
  // What notes and marks mean is the business of whoever makes them.
  void add_note(size_t note, int64_t amount) {
    page_->notes[note].fetch_add(amount, std::memory_order_relaxed);
  }
  int64_t note(size_t note) const { return page_->notes[note].load(std::memory_order_relaxed); }
  void add_marks(uint32_t marks) {
    if ((this->marks() & marks) != marks) page_->marks.fetch_or(marks, std::memory_order_relaxed);
  }
  uint32_t marks() const { return page_->marks.load(std::memory_order_relaxed); }

 private:
  struct Page {
    std::atomic<uint64_t> version;  // odd while it is being set
    std::atomic<int64_t> epoch;
    std::atomic<int64_t> start;
    std::atomic<uint64_t> pick_ups;  // bits 63..32: of which change; 31..0: how many
    std::atomic<uint32_t> warned;
    std::atomic<uint32_t> marks;
    std::array<std::atomic<int64_t>, kNotes> notes;
    std::array<std::atomic<uint64_t>, kWorkers> begun;  // by worker: 1 + the change it began at
  };
  static_assert(sizeof(Page) <= 2 << 20);

  const UniqueFd fd_;
  const SharedMapping memory_;
  Page* const page_;
};

}  // namespace s3io
