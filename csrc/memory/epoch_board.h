// Where the passes over a data set begin, in memory that its workers see.
//
// A team is the workers of one iterator of a loader. Its passes are numbered, by the main process
// and by every worker alike, so a worker that is late reads where its own pass begins, whatever was
// set since. Who knows first says it: a loader that counts for its workers, before the pass begins;
// else the first worker that begins it, from the position of the data set.
//
// The position of the data set is what the main process set last (`set_epoch`). It reaches workers
// that are alive already, whichever way they were started. Marks tell the main process that workers
// have begun there, and that they have read more of it than a look takes.
//
// Workers also add what they count to notes on the board, so that the main process knows the sums,
// and of workers that are gone.
//
// A page of its own rather than a part of the arena: data sets without a pool have workers, too.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/unique_fd.h"
#include "memory/shared_memory.h"

namespace s3io {

class EpochBoard {
 public:
  static constexpr size_t kTeams = 256;  // at a time
  static constexpr size_t kPasses = 4;   // of a team that are known: the latest
  static constexpr size_t kNotes = 64;

  struct Position {
    int64_t epoch = 0;
    int64_t start = 0;     // the first position of the epoch that is still to come
    uint64_t change = 0;   // grows whenever the position of the data set is set
    bool repeats = false;  // whether it is meant to be read more than once
  };
  // A pass of a team. Numbers of teams grow: a place is free for the next team once its former one
  // is gone.
  struct Pass {
    size_t place = 0;  // of the team on the board, below kTeams
    uint32_t team = 1;
    uint32_t number = 0;
  };

  // Throws Error(out_of_memory).
  EpochBoard();
  // The board of another process, over its descriptor. Throws Error(out_of_memory), Error(data).
  explicit EpochBoard(UniqueFd fd);

  int fd() const { return fd_.get(); }

  // The position of the data set. The process that made the board, one thread at a time.
  void set(const Position& position);
  // Another team comes to this place.
  void clear(size_t place) { page_->teams[place].restored = 0; }

  // Any process. Throws Error(data) when the main process died while it was setting it.
  Position read() const;
  // Where this pass begins: what was said of it first, `offered` if nothing was. Nothing where the
  // team has gone on so far since that it is not known any more. Throws Error(data) when who said
  // it died meanwhile.
  std::optional<Position> join(const Pass& pass, const Position& offered);

  // Workers have begun at the position of that change; they have read more than a look there.
  void mark_begun(uint64_t change) { raise(page_->begun, change + 1); }
  void mark_read(uint64_t change) { raise(page_->read, change + 1); }
  // At the position that was set last; at that of a change.
  bool has_begun() const { return page_->begun.load() == read().change + 1; }
  bool was_read(uint64_t change) const { return page_->read.load() == change + 1; }

  // A worker of the team was restored from a state: it has batches left of that epoch, or none.
  // Each of them says so once. `sharing` of them have batches in a whole epoch: the first ones.
  void note_restored(size_t place, int64_t epoch, bool has_left, int64_t sharing);
  // The epoch that the team goes on with: that of the latest state, or the next one where none of
  // them has anything left of it. 0 where no state was restored. Steps go to workers in turn, so
  // those whose states are of an epoch before have not delivered what the latest one has for them.
  int64_t restored_epoch(size_t place) const;

  // True for the first caller of all processes, of each topic below 32: who warns.
  bool warn_once(uint32_t topic) {
    const uint32_t bit = uint32_t{1} << topic;
    return (page_->warned.fetch_or(bit) & bit) == 0;
  }
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
  struct SharedPosition {
    std::atomic<int64_t> epoch;
    std::atomic<int64_t> start;
    std::atomic<uint64_t> change;
    std::atomic<uint32_t> repeats;  // no bool: others may write any bits here

    void store(const Position& position);
    Position load() const;
  };
  // A pass is known by its team and number, plus one, in one word: later ones have larger words.
  struct Entry {
    std::atomic<uint64_t> claimed;  // by who says where it begins
    std::atomic<uint64_t> said;     // the same word, once that is done
    SharedPosition position;
  };
  struct Team {
    std::array<Entry, kPasses> passes;
    std::atomic<uint64_t> restored;  // bits 63..16: epoch; 15: has left; 14..0: of how many states
    std::atomic<int64_t> sharing;
  };
  struct Page {
    std::atomic<uint64_t> version;  // odd while the position is being set
    SharedPosition position;
    std::atomic<uint64_t> begun;  // 1 + the latest change that workers began at
    std::atomic<uint64_t> read;   // the same, of more than a look
    std::atomic<uint32_t> warned;
    std::atomic<uint32_t> marks;
    std::array<std::atomic<int64_t>, kNotes> notes;
    std::array<Team, kTeams> teams;
  };
  static_assert(sizeof(Page) <= 2 << 20);

  template <typename T>
  static void raise(std::atomic<T>& least, T value) {
    T now = least.load();
    while (now < value && !least.compare_exchange_weak(now, value)) {
    }
  }

  const UniqueFd fd_;
  const SharedMapping memory_;
  Page* const page_;
};

}  // namespace s3io
