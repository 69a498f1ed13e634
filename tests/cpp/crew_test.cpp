// Threads that share work.
#include "base/crew.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/path_pattern.h"
#include "testing.h"

namespace s3io::testing::crew_test {

TEST_CASE("every turn is taken once, whatever the number of threads, turns and rounds") {
  for (const int size : {0, 1, 2, 5, 16}) {
    Crew crew(size);
    for (const size_t count : {0, 1, 2, 3, 100, 4, 1000, 1}) {
      std::vector<std::atomic<int>> taken(count);
      crew.run(count, [&](size_t turn) { ++taken[turn]; });
      for (const auto& times : taken) CHECK(times == 1);
    }
  }
}

TEST_CASE("as many threads as turns work at the same time") {
  Crew crew(8);
  std::atomic<int> waiting{0};
  crew.run(8, [&](size_t) {
    ++waiting;
    while (waiting < 8) std::this_thread::yield();
  });
  CHECK(waiting == 8);
}

TEST_CASE("work that was begun goes on by itself, and is done once it was waited for") {
  std::vector<std::atomic<int>> taken(100);
  const auto take = [&](size_t turn) { ++taken[turn]; };
  {
    Crew crew(4);
    crew.finish();  // nothing was begun
    crew.begin(100, take);
    CHECK(
        holds_soon([&] { return std::ranges::all_of(taken, [](auto& one) { return one == 1; }); }));
    crew.begin(100, take);
    crew.begin(100, take);
    crew.finish();
    for (const auto& times : taken) CHECK(times == 3);
    crew.begin(100, take);
  }  // what was begun may be left
  for (const auto& times : taken) CHECK((times == 3 || times == 4));
  Crew alone(1);
  alone.begin(100, take);
  alone.finish();
  for (const auto& times : taken) CHECK((times == 4 || times == 5));
}

TEST_CASE("a path becomes absolute as in Python's os.path.abspath") {
  CHECK(absolute_path("/a/b", "c") == "/a/b/c");
  CHECK(absolute_path("/a/b", "./c/../d//e/") == "/a/b/d/e");
  CHECK(absolute_path("/a/b", "../../../x") == "/x");
  CHECK(absolute_path("/a/b", "/x/./y") == "/x/y");
  CHECK(absolute_path("/a/b", "") == "/a/b");
  CHECK(absolute_path("/a", "..") == "/");
  CHECK(absolute_path("/", "x") == "/x");
}

}  // namespace s3io::testing::crew_test
