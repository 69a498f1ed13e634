// Work that no fork falls into.
#include "base/fork_gate.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "leak_check.h"
#include "testing.h"

namespace s3io::testing::fork_gate_test {

#ifndef __SANITIZE_THREAD__  // which allows no thread in a forked child
TEST_CASE("a child is never forked in the midst of what other threads do, and may do it as well") {
  std::atomic<bool> ends{false};
  std::atomic<int> at_work{0}, done{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 3; ++number) {
    threads.emplace_back([&] {
      while (!ends) {
        const NotWhileForking gate;
        at_work += 1;
        std::this_thread::yield();
        at_work -= 1;
        done += 1;
      }
    });
  }
  CHECK(holds_soon([&] { return done > 100; }));
  for (int fork = 0; fork < 50; ++fork) {
    CHECK(run_in_child([&] {
            require_in_child(at_work == 0, "a thread was at work");
            std::thread([] { const NotWhileForking gate; }).join();
          }) == "");
  }
  const int before = done;
  CHECK(holds_soon([&] { return done > before; }));  // they go on
  ends = true;
  for (std::thread& one : threads) one.join();
}
#endif

}  // namespace s3io::testing::fork_gate_test
