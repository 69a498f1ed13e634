// Memory for several processes: where it comes from when the usual call is refused, and what is
// received from another process without its descriptor.
#include "memory/shared_memory.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <vector>

#include "base/align.h"
#include "forbid.h"
#include "leak_check.h"
#include "memory/aligned_buf.h"
#include "memory/shared_file.h"
#include "memory/slab.h"
#include "memory/slab_arena.h"
#include "testing.h"

namespace s3io::testing::shared_memory_test {

void check_pages(SharedMapping& mapping) {
  for (int64_t offset = 0; offset < mapping.size(); offset += kHugePageBytes) {
    mapping.prepare_huge_page(offset);
    mapping.data()[offset + 4097] = std::byte{7};
  }
  require_in_child(mapping.data()[4097] == std::byte{7}, "the memory lost what was written");
}

TEST_CASE("where memfd_create is refused, memory is shared through /dev/shm") {
  for (const unsigned error_number : {EPERM, EACCES, ENOSYS}) {
    const std::string failure = run_in_child([&] {
      forbid(SYS_memfd_create, error_number);
      const UniqueFd file = make_memory_file(4 * kHugePageBytes);
      struct statfs system {};
      require_in_child(::fstatfs(file.get(), &system) == 0 && system.f_blocks > 0, "a memfd");
      SharedMapping first(file.get(), kHugePageBytes, kHugePageBytes);
      SharedMapping second(file.get(), kHugePageBytes, kHugePageBytes);
      check_pages(first);
      require_in_child(second.data()[4097] == std::byte{7}, "the memory is not shared");
    });
    CHECK(failure == "");
  }
}

TEST_CASE("memory of one process needs neither memfd_create nor a limit of file sizes") {
  const std::string failure = run_in_child([&] {
    const rlimit limit{4096, 4096};
    ::signal(SIGXFSZ, SIG_IGN);
    require_in_child(::setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    const SlabGeometry geometry{.slots = 3, .slot_bytes = kHugePageBytes, .alignment = 4096};
    try {
      make_memory_file(kHugePageBytes);
      throw std::runtime_error("the limit is not in force");
    } catch (const Error& error) {
      const std::string text = error.what();
      require_in_child(error.kind() == ErrorKind::no_space, error.what());
      require_in_child(text.find("now 4 KiB (ulimit -f") != std::string::npos, error.what());
    }
    Slab limited(geometry);
    limited.prepare(2, kHugePageBytes);
    forbid(SYS_memfd_create, EPERM);
    Slab slab(geometry);
    slab.prepare(0, kHugePageBytes);
    slab.slot_data(0)[5] = std::byte{3};
    require_in_child(slab.slot_data(0)[5] == std::byte{3}, "the memory lost what was written");
  });
  CHECK(failure == "");
}

TEST_CASE("a mapping that finds no address space names the limit") {
  const std::string failure = run_in_child([] {
    const UniqueFd file = make_memory_file(int64_t{1} << 40);
    // Beyond what is in use: ThreadSanitizer has taken more than half a terabyte, and takes some
    // yet.
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t bytes = static_cast<rlim_t>(pages * ::sysconf(_SC_PAGESIZE)) + (rlim_t{1} << 38);
    const rlimit limit{bytes, bytes};
    require_in_child(::setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit");
    try {
      const SharedMapping mapping(file.get(), 0, int64_t{1} << 39);
    } catch (const Error& error) {
      const std::string text = error.what();
      require_in_child(error.kind() == ErrorKind::out_of_memory, error.what());
      require_in_child(text.find(message("now ", bytes >> 10, " KiB (ulimit -v")) != text.npos,
                       error.what());
      return;
    }
    throw std::runtime_error("the limit is not in force");
  });
  CHECK(failure == "");
}

TEST_CASE("an arena says how much memory it takes") {
  const SlabGeometry geometry{.slots = 2, .slot_bytes = kHugePageBytes, .alignment = 4096};
  SlabArena arena(geometry);
  const int64_t before = arena.backed_bytes();
  CHECK(before < kHugePageBytes);
  const auto claim = arena.claim(0, 2);
  REQUIRE(claim);
  claim->slab->prepare(0, kHugePageBytes);
  CHECK(arena.backed_bytes() - before >= kHugePageBytes);
  CHECK(arena.backed_bytes() - before < 3 * kHugePageBytes);
}

TEST_CASE("shared bytes are seen after the descriptor is closed, and unmapped in the end") {
  const LeakCheck leaks;
  const Bytes bytes = random_bytes(10'000, 1);
  SharedFile shared;
  {
    const UniqueFd file = make_memory_file(10'000);
    REQUIRE(::pwrite(file.get(), bytes.data(), bytes.size(), 0) == 10'000);
    shared = open_shared_file(file.get(), 0, 10'000);
  }
  CHECK(shared.is_mapped);
  CHECK(mapped_files() == 1);
  CHECK(equals(shared.data, bytes));
  free_shared_file(shared.owner);
  CHECK(mapped_files() == 0);
}

TEST_CASE("beyond a number of mappings shared bytes are copied") {
  const LeakCheck leaks;
  const UniqueFd file = make_memory_file(5000);
  const Bytes bytes = random_bytes(5000, 1);
  REQUIRE(::pwrite(file.get(), bytes.data(), bytes.size(), 0) == 5000);
  std::vector<void*> owners;
  for (int64_t index = 0; index < kMostMappings; ++index) {
    const SharedFile shared = open_shared_file(file.get(), 0, 5000);
    REQUIRE(shared.is_mapped);
    owners.push_back(shared.owner);
  }
  const SharedFile copied = open_shared_file(file.get(), 0, 5000);
  CHECK_FALSE(copied.is_mapped);
  CHECK(equals(copied.data, bytes));
  const std::byte zero{};
  REQUIRE(::pwrite(file.get(), &zero, 1, 0) == 1);
  CHECK(copied.data[0] == bytes[0]);
  free_shared_file(owners.back());
  owners.pop_back();
  const SharedFile mapped = open_shared_file(file.get(), 0, 5000);
  CHECK(mapped.is_mapped);
  free_shared_file(copied.owner);
  free_shared_file(mapped.owner);
  for (void* owner : owners) free_shared_file(owner);
  CHECK(mapped_files() == 0);
}

TEST_CASE("a part of shared bytes is seen from where it begins") {
  const LeakCheck leaks;
  const Bytes bytes = random_bytes(10'000, 1);
  const UniqueFd file = make_memory_file(10'000);
  REQUIRE(::pwrite(file.get(), bytes.data(), bytes.size(), 0) == 10'000);
  for (const int64_t offset : {0, 1, 64, 4095, 4096, 4160, 9999}) {
    const SharedFile shared = open_shared_file(file.get(), offset, 10'000 - offset);
    CHECK(shared.is_mapped);
    CHECK(reinterpret_cast<uintptr_t>(shared.data) % 4096 == offset % 4096);
    CHECK(std::equal(bytes.begin() + offset, bytes.end(), shared.data));
    free_shared_file(shared.owner);
  }
  CHECK(mapped_files() == 0);
}

TEST_CASE(
    "a buffer outside of a shared pool can be mapped by its descriptor, as long as it lives") {
  const LeakCheck leaks;
  for (const int64_t size : {int64_t{1}, int64_t{5000}, kHugePageBytes, 2 * kHugePageBytes + 1}) {
    const Bytes bytes = random_bytes(size, 1);
    AlignedBuf buffer = AlignedBuf::allocate_shared(size, 4096);
    CHECK(buffer.size() == size);
    CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % 4096 == 0);
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    AlignedBuf moved = std::move(buffer);
    void* owner = moved.detach();
    const SharedBlock* block = AlignedBuf::shared_by(owner);
    REQUIRE(block != nullptr);
    const SharedFile shared = open_shared_file(block->fd(), 0, size);
    AlignedBuf::free_detached(owner);
    CHECK(equals(shared.data, bytes));
    free_shared_file(shared.owner);
  }
  AlignedBuf plain = AlignedBuf::allocate(5000, 4096);
  void* owner = plain.detach();
  CHECK(AlignedBuf::shared_by(owner) == nullptr);
  AlignedBuf::free_detached(owner);
  const AlignedBuf dropped = AlignedBuf::allocate_shared(5000, 4096);
}

TEST_CASE("no more than so many buffers outside of a shared pool have a descriptor at a time") {
  const LeakCheck leaks;
  std::vector<AlignedBuf> buffers;
  for (int64_t index = 0; index < SharedBlock::kMost; ++index) {
    buffers.push_back(AlignedBuf::allocate_shared(5000, 4096));
  }
  CHECK(SharedBlock::count() == SharedBlock::kMost);
  const AlignedBuf plain = AlignedBuf::allocate_shared(5000, 4096);
  CHECK(plain.valid());
  CHECK(SharedBlock::count() == SharedBlock::kMost);
  buffers.clear();
  CHECK(SharedBlock::count() == 0);
}

TEST_CASE("a buffer outside of a shared pool is like any other where no descriptor is left") {
  const std::string failure = run_in_child([] {
    const rlimit limit{3, 3};
    require_in_child(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "no limit");
    AlignedBuf buffer = AlignedBuf::allocate_shared(5000, 4096);
    std::fill(buffer.bytes().begin(), buffer.bytes().end(), std::byte{1});
    void* owner = buffer.detach();
    require_in_child(AlignedBuf::shared_by(owner) == nullptr, "a descriptor");
    AlignedBuf::free_detached(owner);
  });
  CHECK(failure.empty());
}

TEST_CASE("a file that is shorter than what was said is refused instead of mapped") {
  const UniqueFd file = make_memory_file(4096);
  for (const int64_t length : {int64_t{4097}, int64_t{0}, int64_t{-1}, int64_t{1} << 60}) {
    CHECK(caught([&] { open_shared_file(file.get(), 0, length); }).kind == ErrorKind::data);
  }
  CHECK(caught([&] { open_shared_file(-1, 0, 10); }).kind == ErrorKind::data);
  for (const int64_t offset : {int64_t{4087}, int64_t{-1}, INT64_MAX}) {
    CHECK(caught([&] { open_shared_file(file.get(), offset, 10); }).kind == ErrorKind::data);
  }
  CHECK(mapped_files() == 0);
}

}  // namespace s3io::testing::shared_memory_test
