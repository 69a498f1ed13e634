// Credentials that one process renews and others use.
#include "http/shared_credentials.h"

#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <thread>

#include "leak_check.h"
#include "testing.h"

namespace s3io::testing::shared_credentials_test {

double now() { return static_cast<double>(::time(nullptr)); }

Credentials keys(int number) {
  return {"access" + std::to_string(number), "secret/+=" + std::to_string(number),
          std::string(1000, static_cast<char>('a' + number % 26))};
}

// Answers each ring with what comes next.
class Renewing {
 public:
  Renewing(TextBoard& board, std::function<SharedCredentials()> next)
      : thread_([this, &board, next = std::move(next)] {
          while (!is_over_) {
            pollfd bell{.fd = board.bell_fd(), .events = POLLIN, .revents = 0};
            if (::poll(&bell, 1, 10) != 1) continue;
            eventfd_t rings = 0;
            ::eventfd_read(board.bell_fd(), &rings);
            ++answers;
            say_credentials(board, next());
          }
        }) {}
  ~Renewing() {
    is_over_ = true;
    thread_.join();
  }
  std::atomic<int> answers{0};

 private:
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

TEST_CASE("what a board says is what others read, whole, however often it changes") {
  TextBoard board;
  board.say("0000");
  std::atomic<bool> is_over{false};
  std::thread reading([&] {
    std::string text;
    while (!is_over) {
      const uint64_t version = board.read(text);
      REQUIRE(version <= board.version());
      REQUIRE(text == std::string(text.size(), text[0]));
      REQUIRE(text.size() % 999 == 4);
    }
  });
  for (int number = 0; number < rounds(2000); ++number) {
    board.say(std::string(4 + static_cast<size_t>(number % 9) * 999,
                          static_cast<char>('0' + number % 10)));
  }
  is_over = true;
  reading.join();
  CHECK(caught([&] { board.say(std::string(TextBoard::kMostBytes + 1, 'x')); }).kind ==
        ErrorKind::config);
}

TEST_CASE("those that are well are used, and nobody is asked") {
  const LeakCheck leaks;
  const auto board = std::make_shared<TextBoard>();
  for (const double expires_s : {0.0, now() + 3600}) {
    say_credentials(*board, {keys(1), expires_s, true});
    const auto source = credentials_on(board, milliseconds(0));
    CHECK(*source->current() == keys(1));
    say_credentials(*board, {keys(2), expires_s, true});
    CHECK(*source->current() == keys(2));
    CHECK(*source->renew(keys(1)) == keys(2));
  }
  eventfd_t rings = 0;
  CHECK(::eventfd_read(board->bell_fd(), &rings) != 0);
}

TEST_CASE("those that have expired, or are refused, are renewed by who answers the bell") {
  const auto board = std::make_shared<TextBoard>();
  int number = 1;
  Renewing renewing(*board, [&] { return SharedCredentials{keys(++number), now() + 3600, true}; });
  say_credentials(*board, {keys(1), now() - 1, true});
  const auto source = credentials_on(board), other = credentials_on(board);
  CHECK(*source->current() == keys(2));
  CHECK(*other->current() == keys(2));
  CHECK(*source->renew(keys(2)) == keys(3));
  CHECK(*other->renew(keys(2)) == keys(3));
  CHECK(renewing.answers == 2);
}

TEST_CASE("where there are no newer ones the error says since when, and why") {
  const auto board = std::make_shared<TextBoard>();
  say_credentials(*board, {keys(1), now() - 100, true});
  const auto alone = credentials_on(board, milliseconds(20));
  CHECK(alone->renew(keys(1)) == nullptr);
  Caught error = caught([&] { alone->current(); });
  CHECK(error.kind == ErrorKind::access);
  CHECK(error.says("expired 10"));
  CHECK(error.says("within 0.02 s"));
  Renewing renewing(*board, [&] {
    return SharedCredentials{keys(1), now() - 100, true,
                             "the token " + keys(1).session_token + " has\nended"};
  });
  const auto source = credentials_on(board);
  CHECK(source->renew(keys(1)) == nullptr);
  error = caught([&] { source->current(); });
  CHECK(error.says("no newer ones: the token ... has\\nended"));
  // Those that never change have nobody who could be asked.
  say_credentials(*board, {keys(3), 0, false});
  const int answers = renewing.answers;
  CHECK(source->renew(keys(3)) == nullptr);
  CHECK(*source->renew(keys(1)) == keys(3));
  CHECK(renewing.answers == answers);
}

TEST_CASE("after a wait in vain nobody waits again, and newer ones are seen at once") {
  const auto board = std::make_shared<TextBoard>();
  say_credentials(*board, {keys(1), now() - 100, true});
  const auto source = credentials_on(board, milliseconds(300));
  const auto seconds_of = [](const auto& work) {
    const auto begin = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const auto ask = [&] {
    CHECK(caught([&] { source->current(); }).says("had no newer ones within 0.3 s"));
    CHECK(source->renew(keys(1)) == nullptr);
  };
  CHECK(seconds_of(ask) >= 0.3);
  CHECK(seconds_of([&] {
          for (int number = 0; number < 100; ++number) ask();
        }) < 3);  // 60 if each waited
  eventfd_t rings = 0;
  CHECK(::eventfd_read(board->bell_fd(), &rings) == 0);
  CHECK(rings == 202);
  say_credentials(*board, {keys(2), now() + 3600, true});
  CHECK(*source->current() == keys(2));
}

TEST_CASE("a wait for newer ones ends with what is thrown in it") {
  const auto board = std::make_shared<TextBoard>();
  say_credentials(*board, {keys(1), now() - 100, true});
  int waits = 0;
  const auto source = credentials_on(board, milliseconds(60'000), [&] {
    if (++waits == 3) throw Error(ErrorKind::config, "stop");
  });
  const auto begin = Clock::now();
  CHECK(caught([&] { source->current(); }).says("stop"));
  waits = 0;
  CHECK(caught([&] { source->renew(keys(1)); }).says("stop"));
  CHECK(Clock::now() - begin < milliseconds(30'000));
  // Others wait as before, and those that come are seen.
  say_credentials(*board, {keys(2), now() + 3600, true});
  CHECK(*source->current() == keys(2));
}

TEST_CASE("a forked child, and one that gets the descriptors, sees what is said later") {
  const auto board = std::make_shared<TextBoard>();
  say_credentials(*board, {keys(1), 0, true});
  const auto source = credentials_on(board);
  CHECK(run_in_child([&] {
          // As the parent's renewing thread would.
          say_credentials(*board, {keys(2), 0, true});
          require_in_child(*credentials_on(board)->current() == keys(2), "the child sees others");
        }) == "");
  CHECK(*source->current() == keys(2));
  const auto same =
      std::make_shared<TextBoard>(UniqueFd(::dup(board->fd())), UniqueFd(::dup(board->bell_fd())));
  CHECK(*credentials_on(same)->current() == keys(2));
  CHECK(caught([&] { say_credentials(*board, {{"key ", "", ""}}); }).kind == ErrorKind::config);
}

}  // namespace s3io::testing::shared_credentials_test
