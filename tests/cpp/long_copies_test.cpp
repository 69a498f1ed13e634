// Long copies out of the page cache are shared by several threads, and nothing else is.
#include <doctest/doctest.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <utility>

#include "base/processors.h"
#include "io/copy_crew.h"
#include "leak_check.h"
#include "read_set.h"
#include "testing.h"

namespace s3io::testing::long_copies_test {

constexpr int64_t kFileBytes = 4 << 20;
constexpr int64_t kPieceBytes = 128 << 10;

// Reads of the file in pieces, and what they bring.
struct Pieces {
  Pieces(int fd, int64_t begin, int64_t end, int64_t piece_bytes = kPieceBytes)
      : bytes(static_cast<size_t>(end - begin)) {
    for (int64_t offset = begin; offset < end; offset += piece_bytes) {
      requests.push_back({.fd = fd,
                          .data = bytes.data() + (offset - begin),
                          .offset = offset,
                          .length = static_cast<uint32_t>(std::min(piece_bytes, end - offset))});
    }
    for (IoRequest& request : requests) pointers.push_back(&request);
  }
  Bytes bytes;
  std::vector<IoRequest> requests;
  std::vector<IoRequest*> pointers;
};

struct Fixture {
  Fixture() : path(folder.path("data")), contents(random_bytes(kFileBytes, 9)) {
    write_file(path, contents);
    fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Pieces one(fd.get(), 0, kPieceBytes);
    CopyCrew(1).run(one.pointers);
    can_copy = has_cachestat(path) && one.requests[0].result == kPieceBytes;
    if (!can_copy) MESSAGE("NOT TESTED: no cachestat(2), or a file system without RWF_NOWAIT");
  }
  TemporaryFolder folder;
  std::string path;
  Bytes contents;
  UniqueFd fd;
  bool can_copy = false;
};

TEST_CASE("a crew of any size makes every copy once, again and again, and goes") {
  const LeakCheck leaks;
  const Fixture file;
  if (!file.can_copy) return;
  for (const int size : {1, 2, 5}) {
    CopyCrew crew(size);
    CHECK(crew.size() == size);
    for (int round = 0; round < rounds(50); ++round) {
      for (const auto& [end, piece_bytes] : {std::pair{int64_t{1}, kPieceBytes},
                                             {kPieceBytes + 1, kPieceBytes},
                                             {kFileBytes, kPieceBytes},
                                             {kPieceBytes + 1, int64_t{5000}},
                                             {int64_t{1} << 20, int64_t{16} << 10}}) {
        Pieces pieces(file.fd.get(), 0, end, piece_bytes);
        crew.run(pieces.pointers);
        for (const IoRequest& request : pieces.requests) REQUIRE(request.result == request.length);
        REQUIRE(equals(file.contents.data(), pieces.bytes));
      }
    }
    crew.run({});
  }
}

TEST_CASE("what a crew cannot copy without a wait it leaves to others, and says so") {
  const Fixture file;
  if (!file.can_copy) return;
  CopyCrew crew(2);
  // Several of them are taken at a time: each has a result of its own.
  Pieces short_ones(file.fd.get(), kFileBytes - 50'000, kFileBytes + 50'000, 20'000);
  crew.run(short_ones.pointers);
  const int64_t expected[] = {20'000, 20'000, 10'000, 0, 0};
  for (size_t index = 0; index < 5; ++index) {
    CHECK(short_ones.requests[index].result == expected[index]);
  }
  Pieces past_the_end(file.fd.get(), kFileBytes - 100, kFileBytes + 2 * kPieceBytes);
  crew.run(past_the_end.pointers);
  CHECK(past_the_end.requests[0].result == 100);
  CHECK(past_the_end.requests[1].result == 0);
  IoRequest over_the_end{.fd = file.fd.get(),
                         .data = past_the_end.bytes.data(),
                         .offset = kFileBytes - 200'000,
                         .length = static_cast<uint32_t>(2 * kPieceBytes)};
  IoRequest* pointer = &over_the_end;
  crew.run({&pointer, 1});
  CHECK(over_the_end.result == 200'000);
  Pieces nowhere(-1, 0, kPieceBytes);
  crew.run(nowhere.pointers);
  CHECK(nowhere.requests[0].result == -EBADF);
  make_cold(file.path);
  if (cached_pages(file.path) > 0) return;  // a file system in memory
  Pieces missing(file.fd.get(), 0, kPieceBytes);
  crew.run(missing.pointers);
  CHECK(missing.requests[0].result == -EAGAIN);
}

TEST_CASE("several threads copy what is in the page cache and long enough, and nothing else") {
  const LeakCheck leaks;
  const Fixture file;
  if (!file.can_copy) return;
  for (const DirectMode mode : modes_for(file.path)) {
    for (const int copiers : {1, 4}) {
      DirectFile direct_file(file.path, mode, 0);
      ReadCounters counters;
      // Without threads of its own.
      if (!has_uring()) continue;
      ReadQueue queue(make_engine({.kind = EngineKind::uring, .depth = 8}),
                      {.copiers = copiers, .min_shared_bytes = 200'000}, &counters);
      const int64_t threads = Resources::now().threads;
      const auto started = [&](const std::vector<ByteRange>& ranges) {
        ReadSet reads(direct_file, ranges);
        reads.run(queue);
        CHECK(reads.check(file.contents).empty());
        return Resources::now().threads - threads;
      };
      CHECK(started({{0, 4096}, {8192, 4096}, {1 << 20, 199'999}}) == 0);
      const bool is_shared = mode != DirectMode::require && copiers > 1;
      for (int round = 0; round < rounds(20); ++round) {
        CHECK(started({{0, kFileBytes}}) == (is_shared ? copiers - 1 : 0));
        CHECK(started({{100, 300'000}, {1 << 20, 200'000}}) == (is_shared ? copiers - 1 : 0));
      }
      const int64_t bytes = counters.direct_bytes + counters.cached_bytes + counters.buffered_bytes;
      CHECK(bytes >= rounds(20) * (kFileBytes + 500'000));
      CHECK((counters.direct_bytes > 0) == (mode == DirectMode::require));
      CHECK((counters.cached_bytes > 0) == (mode == DirectMode::automatic));
      if (mode == DirectMode::off) CHECK(counters.buffered_bytes == bytes);
      CHECK(counters.requests == 3 + rounds(20) * (4 + 2));
    }
  }
}

TEST_CASE("what is missing from the page cache is read whole, and counted as missing") {
  const Fixture file;
  make_cold(file.path);
  if (!file.can_copy || cached_pages(file.path) > 0 || !direct_reads_work(file.path)) {
    MESSAGE("NOT TESTED: files are kept in memory here, or no direct reads");
    return;
  }
  for (const EngineKind kind : engines_here()) {
    for (const int64_t fill_block_bytes : {0, 128 << 10}) {
      make_cold(file.path);
      DirectFile direct_file(file.path, DirectMode::automatic, 0);
      ReadCounters counters;
      ReadQueue queue(make_engine({.kind = kind, .depth = 8}),
                      {.copiers = 4, .fill_block_bytes = fill_block_bytes}, &counters);
      ReadSet reads(direct_file, {{0, kFileBytes}});
      reads.run(queue);
      CHECK(reads.check(file.contents).empty());
      CHECK(counters.requests == 4);
      CHECK(counters.cached_bytes == 0);
      CHECK(counters.direct_bytes == (fill_block_bytes == 0 ? kFileBytes : 0));
      CHECK(counters.filled_bytes == (fill_block_bytes == 0 ? 0 : kFileBytes));
    }
  }
}

TEST_CASE("what leaves the page cache before it is copied is read all the same") {
  const Fixture file;
  make_cold(file.path);
  if (!file.can_copy || cached_pages(file.path) > 0) {
    MESSAGE("NOT TESTED: files are kept in memory here");
    return;
  }
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : {DirectMode::automatic, DirectMode::off}) {
      DirectFile direct_file(file.path, mode, 0);
      ReadCounters counters;
      ReadQueue queue(make_engine({.kind = kind, .depth = 8}),
                      {.chunk_bytes = 64 << 10, .copiers = 4}, &counters);
      for (int round = 0; round < 6; ++round) {  // 64 hits each: from the fifth on it guesses
        ReadSet reads(direct_file, {{0, kFileBytes}});
        if (round == 5) make_cold(file.path);
        reads.run(queue);
        CHECK(reads.check(file.contents).empty());
        static_cast<void>(read_plain(file.path, 0, kFileBytes));
      }
    }
  }
}

TEST_CASE("a file that was cut is an error for shared copies, too") {
  const Fixture file;
  if (!file.can_copy) return;
  for (const int64_t left : {0, 1'000'000, 4'100'000}) {
    write_file(file.path, file.contents);
    DirectFile direct_file(file.path, DirectMode::off, 0);
    ReadCounters counters;
    ReadQueue queue(make_engine({.depth = 8}), {.chunk_bytes = 64 << 10, .copiers = 4}, &counters);
    const auto errors = [&] {
      ReadSet reads(direct_file, {{0, kFileBytes}});
      reads.run(queue);
      return reads.check(file.contents);
    };
    for (int round = 0; round < 5; ++round) CHECK(errors().empty());  // 320 hits: now it guesses
    std::filesystem::resize_file(file.path, static_cast<uintmax_t>(left));
    const std::vector<Error> found = errors();
    REQUIRE(found.size() == 1);
    CHECK(found[0].kind() == ErrorKind::file_changed);
    CHECK(std::string(found[0].what()).find(message("byte ", left)) != std::string::npos);
  }
}

TEST_CASE("processes share the processors that they may run on") {
  int restricted = 0;
  int copiers = 0;
  const int all = available_processors();
  CHECK(copiers_for(1) == std::min(all, 8));
  CHECK(copiers_for(2) == std::clamp(all / 2, 1, 8));
  CHECK(copiers_for(100'000) == 1);
  std::thread([&] {
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof(set), &set) != 0) return;
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    if (::sched_setaffinity(0, sizeof(set), &set) != 0) return;
    restricted = available_processors();
    copiers = copiers_for(1);
  }).join();
  CHECK(restricted == 1);
  CHECK(copiers == 1);
}

}  // namespace s3io::testing::long_copies_test
