// The page on which workers find where their passes begin: whatever is written on it, they read a
// position, nothing, or an Error; and a descriptor that is no such page is refused.
#include "memory/epoch_board.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "engine/input.h"

namespace s3io::fuzz {
namespace {

bool is_same(const EpochBoard::Position& one, const EpochBoard::Position& other) {
  return one.epoch == other.epoch && one.start == other.start && one.change == other.change &&
         one.repeats == other.repeats;
}

EpochBoard::Position any_position(Input& input) {
  const int64_t epoch = input.number();
  const int64_t start = input.number();
  return {.epoch = epoch, .start = start, .change = input.bits(), .repeats = input.flag()};
}

void use(EpochBoard& board, Input& input) {
  const EpochBoard::Position position = board.read();
  require(is_same(position, board.read()));
  const auto place = static_cast<size_t>(input.between(0, EpochBoard::kTeams - 1));
  const EpochBoard::Pass pass{.place = place,
                              .team = static_cast<uint32_t>(input.bits()),
                              .number = static_cast<uint32_t>(input.bits())};
  if (const auto first = board.join(pass, any_position(input))) {
    const auto second = board.join(pass, any_position(input));
    require(second && is_same(*first, *second));
  }
  board.note_restored(place, input.number(), input.flag(), input.number());
  board.restored_epoch(place);
  board.clear(place);
  require(board.restored_epoch(place) == 0);
  board.mark_begun(position.change);
  board.mark_read(position.change);
  board.has_begun();
  board.add_marks(static_cast<uint32_t>(input.bits()));
  const auto topic = static_cast<uint32_t>(input.between(0, 31));
  board.warn_once(topic);
  require(!board.warn_once(topic));
  const auto note = static_cast<size_t>(input.between(0, EpochBoard::kNotes - 1));
  board.add_note(note, input.number());
  board.note(note);
}

void read(Input& input) {
  try {
    if (input.between(0, 15) == 0) {
      UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
      require(::ftruncate(fd.get(), input.between(0, 3 << 20)) == 0);
      EpochBoard adopted(std::move(fd));
      use(adopted, input);
      return;
    }
    EpochBoard board;
    const EpochBoard::Position position = any_position(input);
    board.set(position);
    require(is_same(board.read(), position));
    use(board, input);
    // What another process writes over it.
    const SharedMapping page(board.fd(), 0, 4096);
    const std::string bytes = input.rest().substr(0, 4096);
    std::memcpy(page.data(), bytes.data(), bytes.size());
    if (!bytes.empty()) page.data()[0] &= std::byte{0xfe};  // else every read waits for its writer
    use(board, input);
  } catch (const Error&) {
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
