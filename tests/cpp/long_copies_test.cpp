// Long copies out of the page cache are shared by several threads, and nothing else is.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>

#include "base/processors.h"
#include "base/unique_fd.h"
#include "io/read_queue.h"
#include "leak_check.h"
#include "read_set.h"
#include "testing.h"

namespace s3io::testing {
namespace {

constexpr int kCopies = 16;
constexpr uint32_t kCopyBytes = 128 << 10;
constexpr int64_t kFileBytes = 4 << 20;
constexpr milliseconds kLong{60'000};

// In a thread of its own, which starts without any of the kernel's.
template <typename Function>
void in_new_thread(Function function) {
  std::thread(function).join();
}

// Threads that the kernel works with for the calling one.
int64_t kernel_threads() {
  const std::string wanted = "iou-wrk-" + std::to_string(::gettid());
  int64_t count = 0;
  for (const std::string& number : entries_of("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream("/proc/self/task/" + number + "/comm"), name);
    if (name == wanted) ++count;
  }
  return count;
}

// Reads `count` parts of the file at once.
void copy_parts(IoEngine& engine, const std::string& path, int count, bool is_long_copy) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Bytes bytes(static_cast<size_t>(count) * kCopyBytes);
  std::vector<IoRequest> requests(static_cast<size_t>(count));
  std::vector<IoRequest*> pointers;
  for (size_t index = 0; index < requests.size(); ++index) {
    requests[index] = {.fd = file.get(),
                       .data = bytes.data() + index * kCopyBytes,
                       .offset = static_cast<int64_t>(index) * kCopyBytes,
                       .length = kCopyBytes,
                       .is_long_copy = is_long_copy};
    pointers.push_back(&requests[index]);
  }
  engine.submit(pointers);
  std::vector<IoRequest*> done(requests.size());
  for (int finished = 0; finished < count;) {
    const int arrived = engine.wait(done, 1, kLong);
    REQUIRE(arrived >= 1);
    finished += arrived;
  }
  for (const IoRequest& request : requests) REQUIRE(request.result == kCopyBytes);
  CHECK(equals(bytes.data(), read_plain(path, 0, static_cast<int64_t>(bytes.size()))));
}

}  // namespace

TEST_CASE("the kernel's threads make long copies, as many as may, and nothing else") {
  if (!has_uring()) {
    MESSAGE("NOT TESTED: io_uring is not to be had here");
    return;
  }
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(kCopies * kCopyBytes, 3));
  for (const bool any_thread : {false, true}) {
    for (const int copiers : {1, 2, 4}) {
      in_new_thread([&] {
        const auto engine = make_engine({.kind = EngineKind::uring,
                                         .depth = kCopies,
                                         .any_thread = any_thread,
                                         .copiers = copiers});
        CHECK(engine->copiers() == copiers);
        copy_parts(*engine, path, kCopies, false);
        copy_parts(*engine, path, 1, true);
        CHECK(kernel_threads() == 0);  // the second one would only have been waited for
        for (int round = 0; round < 10; ++round) copy_parts(*engine, path, kCopies, true);
        CHECK((kernel_threads() > 0) == (copiers > 1));
        CHECK(kernel_threads() <= copiers - 1);
      });
    }
  }
}

TEST_CASE("what is in the page cache is cut so that several threads have something to copy") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(kFileBytes, 9);
  write_file(path, contents);
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : modes_for(path)) {
      for (const int copiers : {1, 4}) {
        write_file(path, contents);  // anew: it is cached
        if (!has_cachestat(path)) {
          MESSAGE("NOT TESTED: a kernel without cachestat(2)");
          return;
        }
        DirectFile file(path, mode, 0);
        ReadCounters counters;
        ReadQueue queue(make_engine({.kind = kind, .depth = 8, .copiers = copiers}), {}, &counters);
        ReadSet reads(file, {{0, kFileBytes}});
        reads.run(queue);
        CHECK(reads.check(contents).empty());
        const bool is_shared =
            mode != DirectMode::require && (copiers > 1 || kind == EngineKind::threads);
        CHECK(counters.requests == (is_shared ? 8 : 4));
        CHECK(counters.direct_bytes == (mode == DirectMode::require ? kFileBytes : 0));

        ReadSet one_megabyte(file, {{0, 1 << 20}});
        int64_t before = counters.requests;
        one_megabyte.run(queue);
        CHECK(one_megabyte.check(contents).empty());
        if (is_shared && kind == EngineKind::uring) CHECK(counters.requests == before + 4);
        if (!is_shared) CHECK(counters.requests == before + 1);

        before = counters.requests;
        ReadSet small(file, {{0, 4096}, {8192, 4096}});
        small.run(queue);
        CHECK(small.check(contents).empty());
        CHECK(counters.requests == before + 2);
      }
    }
  }
}

TEST_CASE("what is missing from the page cache is not taken for a copy") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes contents = random_bytes(kFileBytes, 10);
  write_file(path, contents);
  make_cold(path);
  if (cached_pages(path) > 0 || !direct_reads_work(path) || !has_cachestat(path)) {
    MESSAGE("NOT TESTED: files are kept in memory here, or no direct reads, or no cachestat(2)");
    return;
  }
  for (const EngineKind kind : engines_here()) {
    make_cold(path);
    DirectFile file(path, DirectMode::automatic, 0);
    ReadCounters counters;
    ReadQueue queue(make_engine({.kind = kind, .depth = 8, .copiers = 4}), {}, &counters);
    ReadSet reads(file, {{0, kFileBytes}});
    reads.run(queue);
    CHECK(reads.check(contents).empty());
    CHECK(counters.requests == 4);
    CHECK(counters.direct_bytes == kFileBytes);
  }
}

TEST_CASE("processes share the processors that they may run on") {
  in_new_thread([] {
    const int all = available_processors();
    CHECK(copiers_for(1) == std::min(all, 8));
    CHECK(copiers_for(2) == std::clamp(all / 2, 1, 8));
    CHECK(copiers_for(100'000) == 1);
    cpu_set_t set;
    REQUIRE(::sched_getaffinity(0, sizeof(set), &set) == 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    REQUIRE(::sched_setaffinity(0, sizeof(set), &set) == 0);
    CHECK(available_processors() == 1);
    CHECK(copiers_for(1) == 1);
  });
}

}  // namespace s3io::testing
