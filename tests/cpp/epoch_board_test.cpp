// The page through which workers learn where to begin: never half of a change, and each pass where
// its team began it.
#include "memory/epoch_board.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "testing.h"

namespace s3io::testing::epoch_board_test {

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
    CHECK_FALSE(board.has_begun());
    board.set({3, 1000, 1, true});
    const std::string failure = run_in_child([&] {
      EpochBoard theirs(UniqueFd(::dup(board.fd())));
      const EpochBoard::Position found = theirs.read();
      require_in_child(found.epoch == 3, "another epoch");
      require_in_child(found.start == 1000, "another position");
      require_in_child(found.repeats, "read once");
      theirs.mark_begun(found.change);
    });
    CHECK(failure.empty());
    CHECK(board.has_begun());
  }

  TEST_CASE("marks are of the change that they name") {
    EpochBoard board;
    board.mark_begun(0);
    board.mark_read(0);
    CHECK(board.has_begun());
    CHECK(board.was_read(0));
    board.set({0, 0, 1, false});
    CHECK_FALSE(board.has_begun());
    CHECK_FALSE(board.was_read(1));
    board.mark_begun(1);
    board.mark_begun(0);  // a worker that is late
    CHECK(board.has_begun());
  }

  TEST_CASE("a pass begins where it was said first, also for a worker that is late") {
    EpochBoard board;
    board.set({5, 0, 1, false});
    const EpochBoard::Pass pass{.place = 7, .team = 2, .number = 0};
    CHECK(board.join(pass, {1, 2, 3, false})->epoch == 1);
    const std::string failure = run_in_child([&] {
      const auto found = EpochBoard(UniqueFd(::dup(board.fd()))).join(pass, board.read());
      require_in_child(found.has_value(), "a pass that is not known");
      require_in_child(found->epoch == 1, "another epoch");
      require_in_child(found->start == 2, "another position");
      require_in_child(found->change == 3, "another change");
    });
    CHECK(failure.empty());
    CHECK(board.join({7, 2, 1}, board.read())->epoch == 5);
    CHECK(board.join({7, 2, 0}, board.read())->epoch == 1);
    CHECK(board.join({8, 3, 0}, board.read())->epoch == 5);
  }

  TEST_CASE("a pass that its team has left behind is not known, nor is one of a team before") {
    EpochBoard board;
    for (uint32_t number = 0; number <= EpochBoard::kPasses; ++number) {
      CHECK(board.join({0, 1, number}, {number, 0, 0, false})->epoch == number);
    }
    CHECK_FALSE(board.join({0, 1, 0}, {9, 9, 9, false}));
    CHECK(board.join({0, 1, 1}, {9, 9, 9, false})->epoch == 1);
    CHECK(board.join({0, 2, 0}, {6, 0, 0, false})->epoch == 6);
    CHECK_FALSE(board.join({0, 1, EpochBoard::kPasses}, {9, 9, 9, false}));
  }

  TEST_CASE("of many that join at a time one says where the pass begins") {
    EpochBoard board;
    std::atomic<int> others = 0;
    for (uint32_t number = 0; number < 500; ++number) {
      std::array<std::optional<EpochBoard::Position>, 4> found;
      {
        std::vector<std::jthread> joining;
        for (size_t one = 0; one < found.size(); ++one) {
          joining.emplace_back([&, one] {
            const auto value = static_cast<int64_t>(one);
            found[one] = board.join({3, 1, number}, {value, value, one, one % 2 == 0});
          });
        }
      }
      for (const auto& one : found) {
        if (one->epoch != found[0]->epoch || one->epoch != one->start ||
            static_cast<int64_t>(one->change) != one->epoch) {
          ++others;
        }
      }
    }
    CHECK(others == 0);
  }

  TEST_CASE("a team goes on with the latest epoch of its states, or the next one if all is read") {
    EpochBoard board;
    CHECK(board.restored_epoch(1) == 0);
    const auto after = [&](std::vector<std::pair<int64_t, bool>> states, int64_t sharing) {
      board.clear(1);
      for (const auto& [epoch, has_left] : states) {
        board.note_restored(1, epoch, has_left, sharing);
      }
      return board.restored_epoch(1);
    };
    CHECK(after({{0, true}, {0, true}}, 2) == 0);
    CHECK(after({{0, false}, {0, true}}, 2) == 0);
    CHECK(after({{0, true}, {0, false}}, 2) == 0);
    CHECK(after({{0, false}, {0, false}}, 2) == 1);
    // One has begun the next epoch, the other has not: its part of that is still to come.
    CHECK(after({{4, false}, {3, false}}, 2) == 4);
    CHECK(after({{3, false}, {4, false}}, 2) == 4);
    // An epoch of one step has none for the other.
    CHECK(after({{4, false}, {3, false}}, 1) == 5);
    CHECK(after({{(int64_t{1} << 48) - 1, true}}, 1) == (int64_t{1} << 48) - 1);
    CHECK(board.restored_epoch(0) == 0);
  }

  TEST_CASE("one caller warns of each topic") {
    EpochBoard board;
    CHECK(board.warn_once(0));
    CHECK_FALSE(board.warn_once(0));
    CHECK(board.warn_once(1));
    CHECK_FALSE(board.warn_once(1));
  }

  TEST_CASE("nobody sees half of a change") {
    EpochBoard board;
    board.set({1, 1, 1, false});
    constexpr int64_t kChanges = 20'000;
    std::atomic<bool> torn = false;
    std::atomic<bool> done = false;
    std::thread reader([&] {
      while (!done) {
        const EpochBoard::Position position = board.read();
        if (position.epoch != position.start) torn = true;
      }
    });
    for (int64_t number = 2; number < kChanges; ++number) {
      board.set({number, number, static_cast<uint64_t>(number), number % 2 == 0});
    }
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

}  // namespace s3io::testing::epoch_board_test
