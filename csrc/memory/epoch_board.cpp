#include "memory/epoch_board.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

// Writing a position takes nanoseconds; only a process that was killed meanwhile leaves it
// unfinished.
constexpr int kTries = 100'000;

template <typename Done>
bool soon(const Done& done) {
  for (int tried = 0; tried < kTries; ++tried) {
    if (done()) return true;
    ::sched_yield();
  }
  return false;
}

constexpr uint64_t kStates = 0x7fff;
constexpr uint64_t kHasLeft = 0x8000;
constexpr int kEpochShift = 16;

}  // namespace

EpochBoard::EpochBoard()
    : fd_(make_memory_file(sizeof(Page))),
      memory_(fd_.get(), 0, sizeof(Page), sizeof(Page)),
      page_(reinterpret_cast<Page*>(memory_.data())) {}

EpochBoard::EpochBoard(UniqueFd fd)
    : fd_(std::move(fd)),
      memory_(fd_.get(), 0, sizeof(Page), sizeof(Page)),
      page_(reinterpret_cast<Page*>(memory_.data())) {}

void EpochBoard::SharedPosition::store(const Position& position) {
  epoch.store(position.epoch);
  start.store(position.start);
  change.store(position.change);
  repeats.store(position.repeats ? 1 : 0);
}

EpochBoard::Position EpochBoard::SharedPosition::load() const {
  return {epoch.load(), start.load(), change.load(), repeats.load() != 0};
}

void EpochBoard::set(const Position& position) {
  const uint64_t version = page_->version.load();
  page_->version.store(version + 1);
  page_->position.store(position);
  page_->version.store(version + 2);
}

EpochBoard::Position EpochBoard::read() const {
  Position position;
  const bool is_whole = soon([&] {
    const uint64_t version = page_->version.load();
    position = page_->position.load();
    return version % 2 == 0 && page_->version.load() == version;
  });
  if (is_whole) return position;
  throw Error(ErrorKind::data, "the main process ended while it was setting the epoch");
}

std::optional<EpochBoard::Position> EpochBoard::join(const Pass& pass, const Position& offered) {
  Entry& entry = page_->teams[pass.place].passes[pass.number % kPasses];
  const uint64_t word = (uint64_t{pass.team} << 32 | pass.number) + 1;
  uint64_t before = entry.claimed.load();
  while (before < word) {
    if (!entry.claimed.compare_exchange_weak(before, word)) continue;
    entry.position.store(offered);
    entry.said.store(word);
    return offered;
  }
  if (before > word) return std::nullopt;
  if (!soon([&] { return entry.said.load() >= word; })) {
    throw Error(ErrorKind::data, "a process ended while it said where a pass of workers begins");
  }
  const Position position = entry.position.load();
  // By now another pass may have come to this entry.
  if (entry.claimed.load() != word) return std::nullopt;
  return position;
}

void EpochBoard::note_restored(size_t place, int64_t epoch, bool has_left, int64_t sharing) {
  Team& team = page_->teams[place];
  team.sharing = sharing;
  const uint64_t left = has_left ? kHasLeft : 0;
  const auto number = static_cast<uint64_t>(epoch);
  uint64_t before = team.restored.load();
  uint64_t after = 0;
  do {
    const bool is_first = (before & kStates) == 0;
    if (!is_first && before >> kEpochShift > number) return;
    const bool is_same = !is_first && before >> kEpochShift == number;
    const uint64_t states = is_same ? std::min((before & kStates) + 1, kStates) : 1;
    after = number << kEpochShift | (is_same ? before & kHasLeft : 0) | left | states;
  } while (!team.restored.compare_exchange_weak(before, after));
}

int64_t EpochBoard::restored_epoch(size_t place) const {
  const Team& team = page_->teams[place];
  const uint64_t restored = team.restored.load();
  const auto states = static_cast<int64_t>(restored & kStates);
  if (states == 0) return 0;
  const bool is_over = (restored & kHasLeft) == 0 && states >= team.sharing.load();
  return static_cast<int64_t>(restored >> kEpochShift) + (is_over ? 1 : 0);
}

}  // namespace s3io
