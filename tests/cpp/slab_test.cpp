// Slots in shared memory: their states, their pages, waiting for them across processes.
#include "memory/slab.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <random>
#include <sstream>

#include "base/align.h"
#include "leak_check.h"
#include "memory/shared_memory.h"
#include "testing.h"

namespace s3io::testing::slab_test {

// Kilobytes of the mapping around `address` that a huge-page entry of the page table maps.
int64_t huge_kilobytes(const std::byte* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    const size_t dash = first.find('-');
    if (dash != std::string::npos && first.back() != ':') {
      const uintptr_t begin = std::stoull(first.substr(0, dash), nullptr, 16);
      const uintptr_t end = std::stoull(first.substr(dash + 1), nullptr, 16);
      inside = begin <= wanted && wanted < end;
    } else if (inside && first == "ShmemPmdMapped:") {
      int64_t kilobytes = 0;
      words >> kilobytes;
      return kilobytes;
    }
  }
  return -1;
}

TEST_CASE("a slab hands out each slot once, the lowest first, and none when all are held") {
  const LeakCheck leaks;
  Slab slab({3, 4096, 4096});
  CHECK(slab.hold_free_slot() == 0);
  CHECK(slab.hold_free_slot() == 1);
  CHECK(slab.hold_free_slot() == 2);
  CHECK(slab.hold_free_slot() == -1);
  CHECK(slab.held_slots() == 3);
  slab.release(1);
  CHECK(slab.held_slots() == 2);
  CHECK(slab.hold_free_slot() == 1);
  CHECK(slab.generation(0) == 1);
  CHECK(slab.generation(1) == 2);
}

TEST_CASE("slots are aligned, do not overlap and keep what is written, for any size") {
  const LeakCheck leaks;
  std::mt19937_64 random(2);
  for (int round = 0; round < 30; ++round) {
    const auto slots = static_cast<int64_t>(1 + random() % 6);
    const auto bytes = static_cast<int64_t>(1 + random() % (round % 5 == 0 ? 3'000'000 : 200'000));
    const int64_t alignment = int64_t{1} << (random() % 14);
    CAPTURE(slots);
    CAPTURE(bytes);
    CAPTURE(alignment);
    Slab slab({slots, bytes, alignment});
    for (int64_t slot = 0; slot < slots; ++slot) {
      const auto address = reinterpret_cast<uintptr_t>(slab.slot_data(slot));
      CHECK(address % static_cast<uintptr_t>(alignment) == 0);
      CHECK(address % 64 == 0);
      if (bytes >= kHugePageBytes) CHECK(address % kHugePageBytes == 0);
      slab.prepare(slot, slab.slot_bytes());
      std::memset(slab.slot_data(slot), static_cast<int>(slot + 1), static_cast<size_t>(bytes));
    }
    for (int64_t slot = 0; slot < slots; ++slot) {
      const Bytes expected(static_cast<size_t>(bytes), static_cast<std::byte>(slot + 1));
      CHECK(equals(slab.slot_data(slot), expected));
    }
    CHECK(slab.held_slots() == 0);  // no slot reaches into the state words
  }
}

TEST_CASE("preparing a slot never changes another one that is in use") {
  Slab slab({40, 300'000, 512});  // about seven to a huge page, some across two
  for (int64_t slot = 0; slot < 40; ++slot) {
    slab.prepare(slot, 1);  // all of it is used nevertheless
    std::memset(slab.slot_data(slot), static_cast<int>(slot + 1), 300'000);
  }
  for (int64_t slot = 0; slot < 40; ++slot) {
    CHECK(equals(slab.slot_data(slot), Bytes(300'000, static_cast<std::byte>(slot + 1))));
  }
}

TEST_CASE("pages are prepared once each, and as many are huge as the kernel says") {
  Slab slab({4, 5 * kHugePageBytes / 2, 4096});  // three huge pages each
  for (int64_t slot : {2, 0, 2, 3}) slab.prepare(slot, slab.slot_bytes());
  CHECK(slab.huge_pages() + slab.small_pages() == 9);
  slab.prepare(1, kHugePageBytes);  // only the first of its pages
  CHECK(slab.huge_pages() + slab.small_pages() == 10);
  CHECK(huge_kilobytes(slab.slot_data(0)) == slab.huge_pages() * 2048);
  if (slab.small_pages() > 0) MESSAGE("not all pages are huge here: ", slab.small_pages());
}

TEST_CASE("nonsense is refused, and the error names the setting") {
  const LeakCheck leaks;
  for (const int64_t capacity : {int64_t{0}, int64_t{-1}, Slab::kMaxSlots + 1}) {
    const Caught error = caught([&] { Slab({capacity, 4096, 4096}); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("capacity"));
  }
  for (const int64_t alignment : {int64_t{0}, int64_t{-512}, int64_t{3}, 2 * kHugePageBytes}) {
    const Caught error = caught([&] { Slab({1, 4096, alignment}); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("alignment"));
  }
  for (const int64_t bytes : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
    const Caught error = caught([&] { Slab({2, bytes, 4096}); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("buffer_size"));
  }
}

TEST_CASE("a release in another process wakes the waiter and frees the slot") {
  const LeakCheck leaks;
  Slab slab({1, 4096, 4096});
  REQUIRE(slab.hold_free_slot() == 0);
  const uint32_t seen = slab.release_count();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    slab.release(0);
    ::_exit(0);
  }
  for (int slice = 0; slice < 600 && slab.release_count() == seen; ++slice) {
    slab.wait_for_release(seen, milliseconds(100));
  }
  CHECK(slab.release_count() != seen);
  CHECK(slab.hold_free_slot() == 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
}

TEST_CASE("waiting returns at once when a release came before it") {
  Slab slab({1, 64, 64});
  const uint32_t seen = slab.release_count();
  slab.wake_waiters();
  slab.wait_for_release(seen, std::chrono::hours(1));
  CHECK(slab.release_count() != seen);
}

}  // namespace s3io::testing::slab_test
