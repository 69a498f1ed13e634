#include "memory/epoch_board.h"

#include <sched.h>

#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

constexpr uint64_t kCountBits = 32;

}  // namespace

EpochBoard::EpochBoard()
    : fd_(make_memory_file(sizeof(Page))),
      memory_(fd_.get(), 0, sizeof(Page)),
      page_(reinterpret_cast<Page*>(memory_.data())) {}

EpochBoard::EpochBoard(UniqueFd fd)
    : fd_(std::move(fd)),
      memory_(fd_.get(), 0, sizeof(Page)),
      page_(reinterpret_cast<Page*>(memory_.data())) {}

void EpochBoard::set(int64_t epoch, int64_t start) {
  const uint64_t version = page_->version.load();
  page_->version.store(version + 1);
  page_->epoch.store(epoch);
  page_->start.store(start);
  page_->pick_ups.store((version / 2 + 1) << kCountBits);
  page_->version.store(version + 2);
}

int64_t EpochBoard::pick_ups() const {
  return static_cast<int64_t>(page_->pick_ups.load() & ((uint64_t{1} << kCountBits) - 1));
}

EpochBoard::Position EpochBoard::read() const {
  // Setting takes nanoseconds; only a process that was killed meanwhile leaves it unfinished.
  constexpr int kTries = 100'000;
  for (int tried = 0; tried < kTries; ++tried) {
    const uint64_t version = page_->version.load();
    const Position position{page_->epoch.load(), page_->start.load(), version / 2};
    if (version % 2 == 0 && page_->version.load() == version) return position;
    ::sched_yield();
  }
  throw Error(ErrorKind::data, "the main process ended while it was setting the epoch");
}

EpochBoard::PickUp EpochBoard::pick_up(int64_t worker) {
  PickUp pick_up{.position = read()};
  const uint64_t change = pick_up.position.change;
  if (worker >= 0 && worker < kWorkers) {
    const uint64_t mark = change + 1;
    pick_up.repeated = page_->begun[static_cast<size_t>(worker)].exchange(mark) == mark;
  }
  uint64_t counted = page_->pick_ups.load();
  while (counted >> kCountBits == (change & UINT32_MAX) &&
         !page_->pick_ups.compare_exchange_weak(counted, counted + 1)) {
  }
  return pick_up;
}

}  // namespace s3io
