// The page on which workers find the epoch: whatever is written on it, they read two numbers or an
// Error; and a descriptor that is no such page is refused.
#include "memory/epoch_board.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "engine/input.h"

namespace s3io::fuzz {
namespace {

void use(EpochBoard& board, Input& input) {
  const int64_t worker = input.number();
  const EpochBoard::PickUp first = board.pick_up(worker);
  const EpochBoard::PickUp second = board.pick_up(worker);
  require(second.position.epoch == first.position.epoch);
  require(worker < 0 || worker >= EpochBoard::kWorkers || second.repeated);
  require(board.pick_ups() >= 0);
  board.add_marks(static_cast<uint32_t>(input.bits()));
  board.warn_once();
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
    const int64_t epoch = input.number();
    const int64_t start = input.number();
    board.set(epoch, start);
    require(board.read().epoch == epoch && board.read().start == start);
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
