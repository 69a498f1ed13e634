// The page through which workers learn where to begin: never half of a change, and marks that
// count.
#include "memory/epoch_board.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "testing.h"

namespace s3io::testing {
namespace {

TEST_SUITE("epoch board") {
  TEST_CASE("what workers note is added up, and their marks are gathered") {
    EpochBoard board;
    for (const uint32_t mark : {1U, 4U}) {
      const std::string failure = run_in_child([&] {
        EpochBoard theirs(UniqueFd(::dup(board.fd())));
        theirs.add_note(0, 5);
        theirs.add_note(EpochBoard::kNotes - 1, mark);
        theirs.add_marks(mark);
      });
      CHECK(failure.empty());
    }
    CHECK(board.note(0) == 10);
    CHECK(board.note(EpochBoard::kNotes - 1) == 5);
    CHECK(board.marks() == 5);
  }

  TEST_CASE("a worker reads what the main process set last, in a process of its own too") {
    EpochBoard board;
    CHECK(board.read().epoch == 0);
    CHECK(board.read().start == 0);
    board.set(3, 1000);
    const std::string failure = run_in_child([&] {
      const EpochBoard::PickUp found = EpochBoard(UniqueFd(::dup(board.fd()))).pick_up(1);
      require_in_child(found.position.epoch == 3, "another epoch");
      require_in_child(found.position.start == 1000, "another position");
      require_in_child(!found.repeated, "a first time that is called a second one");
    });
    CHECK(failure.empty());
    CHECK(board.pick_ups() == 1);
  }

  TEST_CASE("a worker that begins twice without a change in between is told so") {
    EpochBoard board;
    CHECK_FALSE(board.pick_up(0).repeated);
    CHECK_FALSE(board.pick_up(1).repeated);
    CHECK(board.pick_up(1).repeated);
    CHECK(board.pick_ups() == 3);
    board.set(0, 0);
    CHECK(board.pick_ups() == 0);
    CHECK_FALSE(board.pick_up(1).repeated);
    CHECK(board.pick_ups() == 1);
  }

  TEST_CASE("workers with numbers beyond the marks still read the position") {
    EpochBoard board;
    board.set(5, 6);
    for (const int64_t worker : {int64_t{-1}, EpochBoard::kWorkers, int64_t{1} << 40}) {
      CHECK(board.pick_up(worker).position.epoch == 5);
      CHECK_FALSE(board.pick_up(worker).repeated);
    }
  }

  TEST_CASE("one caller warns") {
    EpochBoard board;
    CHECK(board.warn_once());
    CHECK_FALSE(board.warn_once());
  }

  TEST_CASE("nobody sees half of a change") {
    EpochBoard board;
    board.set(1, 1);
    constexpr int64_t kChanges = 20'000;
    std::atomic<bool> torn = false;
    std::atomic<bool> done = false;
    std::thread reader([&] {
      while (!done) {
        const EpochBoard::Position position = board.pick_up(0).position;
        if (position.epoch != position.start) torn = true;
      }
    });
    for (int64_t number = 2; number < kChanges; ++number) board.set(number, number);
    done = true;
    reader.join();
    CHECK_FALSE(torn);
    CHECK(board.read().epoch == kChanges - 1);
    CHECK(board.read().change == kChanges - 1);
  }

  TEST_CASE("a process that died while setting it is an error, not a wait without end") {
    EpochBoard board;
    SharedMapping page(board.fd(), 0, 8);
    *reinterpret_cast<uint64_t*>(page.data()) = 1;  // odd: being set
    CHECK(caught([&] { board.read(); }).kind == ErrorKind::data);
  }

  TEST_CASE("a descriptor of less memory is refused before it is touched") {
    for (const off_t size : {off_t{0}, off_t{4096}}) {
      UniqueFd fd(::memfd_create("short", MFD_CLOEXEC));
      REQUIRE(::ftruncate(fd.get(), size) == 0);
      CHECK(caught([&] { EpochBoard board(std::move(fd)); }).kind == ErrorKind::data);
    }
  }
}

}  // namespace
}  // namespace s3io::testing
