// Leases, waiting, detached buffers, forked children.
#include "memory/buffer_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <thread>

#include "base/align.h"
#include "leak_check.h"
#include "testing.h"

namespace s3io::testing::buffer_pool_test {

constexpr int64_t kSize = 8192;

BufferPool make_pool(int64_t capacity) { return BufferPool({capacity, kSize, 4096}); }

TEST_CASE("a lease goes back when given, when it dies, and when it is assigned over") {
  const LeakCheck leaks;
  BufferPool pool = make_pool(2);
  AlignedBuf first = pool.take(kSize, 0);
  CHECK(first.size() == kSize);
  CHECK(pool.stats().in_use == 1);
  pool.give(std::move(first));
  CHECK_FALSE(first.valid());  // NOLINT(bugprone-use-after-move): moved from is a defined state
  CHECK(pool.stats().in_use == 0);
  {
    const AlignedBuf dies = pool.take(1, 0);
    CHECK(pool.stats().in_use == 1);
  }
  CHECK(pool.stats().in_use == 0);
  AlignedBuf kept = pool.take(1, 0);
  kept = pool.take(1, 0);
  CHECK(pool.stats().in_use == 1);
  kept = AlignedBuf();
  const BufferPoolStats stats = pool.stats();
  CHECK(stats.in_use == 0);
  CHECK(stats.taken == 4);
  CHECK(stats.peak == 2);
  CHECK(stats.waited == 0);
  CHECK(stats.oversize == 0);
}

TEST_CASE("a buffer of another pool, or one given before, is refused") {
  BufferPool pool = make_pool(1);
  BufferPool other = make_pool(1);
  AlignedBuf buffer = other.take(1, 0);
  CHECK(caught([&] { pool.give(std::move(buffer)); }).kind == ErrorKind::config);
  CHECK(buffer.valid());  // NOLINT(bugprone-use-after-move): refused, so still the caller's
  other.give(std::move(buffer));
  CHECK(caught([&] { other.give(std::move(buffer)); }).kind == ErrorKind::config);
  CHECK(other.stats().in_use == 0);
}

TEST_CASE("when no buffer becomes free in time the error names the setting and its value") {
  BufferPool pool = make_pool(2);
  const AlignedBuf first = pool.take(1, 0);
  const AlignedBuf second = pool.take(1, 0);
  CHECK_FALSE(pool.try_take(1).has_value());
  const Caught error = caught([&] { pool.take(1, 0); });
  CHECK(error.kind == ErrorKind::pool_timeout);
  CHECK(error.says("BufferPoolConfig.capacity (now 2)"));
  CHECK(pool.stats().waited == 1);
  CHECK(pool.stats().in_use == 2);
}

TEST_CASE("whoever waits may give up") {
  BufferPool pool = make_pool(1);
  const AlignedBuf held = pool.take(1, 0);
  CHECK_THROWS_AS(pool.take(1, 3600, [] { throw std::runtime_error("interrupted"); }),
                  std::runtime_error);
  CHECK(pool.stats().in_use == 1);
}

TEST_CASE("a waiting thread gets the buffer that another one gives") {
  BufferPool pool = make_pool(1);
  AlignedBuf held = pool.take(1, 0);
  std::thread waiter([&pool] { pool.give(pool.take(1, 60)); });
  CHECK(holds_soon([&pool] { return pool.stats().waited == 1; }));
  pool.give(std::move(held));
  waiter.join();
  CHECK(pool.stats().taken == 2);
  CHECK(pool.stats().in_use == 0);
}

TEST_CASE("a request larger than a buffer gets memory of its own, counted") {
  const LeakCheck leaks;
  BufferPool pool = make_pool(1);
  const AlignedBuf held = pool.take(1, 0);
  AlignedBuf large = pool.take(kSize + 1, 0);  // does not wait
  CHECK(large.slot() == -1);
  CHECK(large.size() == kSize + 1);
  CHECK(reinterpret_cast<uintptr_t>(large.data()) % 4096 == 0);
  std::memset(large.data(), 1, static_cast<size_t>(large.size()));
  CHECK(pool.stats().oversize == 1);
  CHECK(pool.stats().in_use == 1);
}

TEST_CASE("memory that cannot be had is an error, not a crash") {
  for (const int64_t size : {std::numeric_limits<int64_t>::max(), int64_t{1} << 60}) {
    CHECK(caught([&] { AlignedBuf::allocate(size, 4096); }).kind == ErrorKind::out_of_memory);
  }
}

TEST_CASE("a detached buffer stays taken until it is freed, and is counted as lent") {
  const LeakCheck leaks;
  BufferPool pool = make_pool(4);
  AlignedBuf buffer = pool.take(1, 0);
  void* owner = buffer.detach();
  CHECK_FALSE(buffer.valid());
  CHECK(pool.lent() == 1);
  CHECK(pool.can_lend());
  void* second = pool.take(1, 0).detach();
  CHECK_FALSE(pool.can_lend());  // two of four are kept for reading
  AlignedBuf::free_detached(second);
  AlignedBuf::free_detached(owner);
  CHECK(pool.lent() == 0);
  CHECK(pool.stats().in_use == 0);
  AlignedBuf::free_detached(AlignedBuf::allocate(100, 64).detach());
}

TEST_CASE("the memory of a pool outlives it until the last buffer is freed") {
  const LeakCheck leaks;
  std::byte* data = nullptr;
  void* owner = nullptr;
  {
    BufferPool pool = make_pool(2);
    AlignedBuf buffer = pool.take(1, 0);
    data = buffer.data();
    owner = buffer.detach();
  }
  std::memset(data, 7, kSize);
  CHECK(data[kSize - 1] == std::byte{7});
  AlignedBuf::free_detached(owner);
}

TEST_CASE("many threads never hold the same buffer at once") {
  const LeakCheck leaks;
  BufferPool pool = make_pool(3);
  std::atomic<int> clashes{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 8; ++number) {
    threads.emplace_back([&, number] {
      for (int round = 0; round < 300; ++round) {
        AlignedBuf buffer = pool.take(kSize, 60);
        const auto mark = static_cast<std::byte>(number * 31 + round);
        std::memset(buffer.data(), static_cast<int>(mark), kSize);
        if (round % 3 == 0) std::this_thread::yield();
        if (buffer.data()[0] != mark || buffer.data()[kSize - 1] != mark) ++clashes;
        if (round % 2 == 0) AlignedBuf::free_detached(buffer.detach());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(clashes == 0);
  const BufferPoolStats stats = pool.stats();
  CHECK(stats.in_use == 0);
  CHECK(stats.taken == 8 * 300);
  CHECK(stats.peak <= 3);
}

TEST_CASE("a forked child never frees what its parent holds, and cannot take") {
  const LeakCheck leaks;
  BufferPool pool = make_pool(2);
  AlignedBuf held = pool.take(1, 0);
  std::memset(held.data(), 5, kSize);
  void* detached = pool.take(1, 0).detach();
  const std::string failure = run_in_child([&] {
    require_in_child(held.data()[kSize - 1] == std::byte{5}, "the child cannot read the buffer");
    held = AlignedBuf();
    AlignedBuf::free_detached(detached);
    try {
      pool.try_take(1);
    } catch (const Error& error) {
      require_in_child(error.kind() == ErrorKind::config, error.what());
      return;
    }
    throw std::runtime_error("the child could take a buffer");
  });
  CHECK(failure == "");
  CHECK(pool.stats().in_use == 2);
  CHECK_FALSE(pool.try_take(1).has_value());
  AlignedBuf::free_detached(detached);
  held = AlignedBuf();
  CHECK(pool.stats().in_use == 0);
}

TEST_CASE("nonsense configurations are refused") {
  const std::vector<BufferPoolConfig> bad{
      {.capacity = 0},    {.capacity = -3},    {.capacity = 1 << 20},
      {.buffer_size = 0}, {.buffer_size = -1}, {.buffer_size = std::numeric_limits<int64_t>::max()},
      {.alignment = 0},   {.alignment = 100},  {.alignment = int64_t{1} << 40}};
  for (const BufferPoolConfig& config : bad) {
    CHECK(caught([&] { BufferPool pool(config); }).kind == ErrorKind::config);
  }
}

}  // namespace s3io::testing::buffer_pool_test
