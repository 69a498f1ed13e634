// Engines report what the kernel says: right bytes in any order, short reads, errors.
#include <doctest/doctest.h>

#include <cerrno>
#include <random>
#include <set>

#include "io/io_engine.h"
#include "leak_check.h"
#include "memory/slab.h"
#include "testing.h"

namespace s3io::testing::engine_test {

constexpr int64_t kFileBytes = 300'000;
constexpr milliseconds kLong{60'000};

struct OpenFile {
  explicit OpenFile(const std::string& file_path, int flags = 0)
      : path(file_path), fd(::open(file_path.c_str(), O_RDONLY | O_CLOEXEC | flags)) {
    REQUIRE(fd.valid());
  }
  std::string path;
  UniqueFd fd;
};

IoRequest read_one(IoEngine& engine, IoRequest request) {
  IoRequest* pointer = &request;
  engine.submit({&pointer, 1});
  IoRequest* done = nullptr;
  REQUIRE(engine.wait({&done, 1}, 1, kLong) == 1);
  REQUIRE(done == pointer);
  return request;
}

std::string make_file(const TemporaryFolder& folder) {
  const std::string path = folder.path("data");
  write_file(path, random_bytes(kFileBytes, 4));
  return path;
}

// Keeps `depth` random reads in flight until `total` came back, and compares each with a plain
// read.
void check_random_reads(IoEngine& engine, const std::string& path, int total) {
  const OpenFile file(path);
  const auto depth = static_cast<size_t>(engine.depth());
  std::mt19937_64 random(5);
  std::vector<IoRequest> requests(depth);
  std::vector<Bytes> buffers(depth);
  const auto fill = [&](size_t index) {
    const auto offset = static_cast<int64_t>(random() % kFileBytes);
    const auto length = static_cast<uint32_t>(1 + random() % 20'000);
    buffers[index].assign(length, std::byte{0});
    requests[index] = {
        .fd = file.fd.get(), .data = buffers[index].data(), .offset = offset, .length = length};
  };
  std::vector<IoRequest*> batch;
  for (size_t index = 0; index < depth; ++index) {
    fill(index);
    batch.push_back(&requests[index]);
  }
  int in_flight = 0;
  int finished = 0;
  std::vector<IoRequest*> done(depth);
  while (finished < total) {
    engine.submit(batch);
    in_flight += static_cast<int>(batch.size());
    batch.clear();
    const int count = engine.wait(done, std::max(1, in_flight / 4), kLong);
    REQUIRE(count >= 1);
    for (int number = 0; number < count; ++number) {
      const auto index = static_cast<size_t>(done[static_cast<size_t>(number)] - requests.data());
      const IoRequest& request = requests[index];
      const int64_t expected =
          std::min<int64_t>(request.length, kFileBytes - request.offset);  // short at the end
      REQUIRE(request.result == expected);
      CHECK(equals(request.data, read_plain(path, request.offset, expected)));
      fill(index);
      batch.push_back(&requests[index]);
    }
    in_flight -= count;
    finished += count;
  }
  while (in_flight > 0) {
    const int count = engine.wait(done, in_flight, kLong);
    REQUIRE(count >= 1);
    in_flight -= count;
  }
}

TEST_CASE("random reads bring the right bytes at any depth") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = make_file(folder);
  for (const EngineKind kind : engines_here()) {
    for (const int depth : {1, 3, 64}) {
      for (const bool any_thread : {false, true}) {
        const auto engine = make_engine({.kind = kind, .depth = depth, .any_thread = any_thread});
        CHECK(engine->name() == name_of(kind));
        CHECK(engine->depth() == depth);
        check_random_reads(*engine, path, 200);
      }
    }
  }
}

TEST_CASE("every read of a full queue comes back once") {
  const TemporaryFolder folder;
  const OpenFile file(make_file(folder));
  for (const EngineKind kind : engines_here()) {
    const auto engine = make_engine({.kind = kind, .depth = 32});
    std::vector<IoRequest> requests(32);
    std::vector<IoRequest*> pointers;
    std::vector<std::byte> buffer(32);
    for (size_t index = 0; index < 32; ++index) {
      requests[index] = {.fd = file.fd.get(),
                         .data = &buffer[index],
                         .offset = static_cast<int64_t>(index),
                         .length = 1};
      pointers.push_back(&requests[index]);
    }
    engine->submit(pointers);
    std::set<IoRequest*> seen;
    std::vector<IoRequest*> done(5);  // fewer than are ready: the rest must wait their turn
    while (seen.size() < 32) {
      const int count = engine->wait(done, 5, kLong);
      REQUIRE(count >= 1);
      for (int index = 0; index < count; ++index) {
        CHECK(seen.insert(done[static_cast<size_t>(index)]).second);
      }
    }
    CHECK(engine->wait(done, 1, milliseconds(0)) == 0);
    CHECK(equals(buffer.data(), read_plain(file.path, 0, 32)));
  }
}

TEST_CASE("errors, short reads and the end of the file are reported as they are") {
  const TemporaryFolder folder;
  const OpenFile file(make_file(folder));
  std::byte buffer[64];
  for (const EngineKind kind : engines_here()) {
    const auto engine = make_engine({.kind = kind, .depth = 1});
    const auto result = [&](int fd, int64_t offset, std::byte* data) {
      return read_one(*engine, {.fd = fd, .data = data, .offset = offset, .length = 64}).result;
    };
    CHECK(result(-1, 0, buffer) == -EBADF);
    CHECK(result(file.fd.get(), kFileBytes - 10, buffer) == 10);
    CHECK(result(file.fd.get(), kFileBytes, buffer) == 0);
    CHECK(result(file.fd.get(), kFileBytes + 5, buffer) == 0);
    CHECK(result(file.fd.get(), -5, buffer) == -EINVAL);
    CHECK(result(file.fd.get(), 0, reinterpret_cast<std::byte*>(8)) == -EFAULT);
  }
}

TEST_CASE("reads into registered buffers bring the same bytes") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const OpenFile file(make_file(folder));
  const Bytes expected = read_plain(file.path, 1000, 5000);
  for (const EngineKind kind : engines_here()) {
    const auto engine = make_engine({.kind = kind, .depth = 4});
    Slab slab({2, 8192, 4096});
    for (const int slot : {0, 1}) {
      slab.prepare(slot, slab.slot_bytes());
      const std::span<std::byte> memory(slab.slot_data(slot), 8192);
      const bool registered = engine->register_buffer(slot, memory);
      CHECK(registered == (kind == EngineKind::uring));  // 16 KiB: within any limit
      CHECK(engine->register_buffer(slot, memory) == registered);
      const IoRequest request = read_one(*engine, {.fd = file.fd.get(),
                                                   .data = memory.data() + 100,
                                                   .offset = 1000,
                                                   .length = 5000,
                                                   .buffer_index = slot});
      REQUIRE(request.result == 5000);
      CHECK(equals(request.data, expected));
    }
    CHECK_FALSE(engine->register_buffer(-1, {slab.slot_data(0), 8192}));
    CHECK_FALSE(engine->register_buffer(IoEngine::kMaxBuffers, {slab.slot_data(0), 8192}));
  }
}

TEST_CASE("an engine may go while reads that it was given have not begun") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const OpenFile file(make_file(folder));
  std::vector<IoRequest> requests(64);
  std::vector<IoRequest*> pointers;
  Bytes buffer(64 * 1000);
  for (size_t index = 0; index < 64; ++index) {
    requests[index] = {.fd = file.fd.get(), .data = &buffer[index * 1000], .length = 1000};
    pointers.push_back(&requests[index]);
  }
  const auto engine = make_engine({.kind = EngineKind::threads, .depth = 64});
  engine->submit(pointers);
}

TEST_CASE("a depth that cannot be is refused, and so are unknown names") {
  for (const int depth : {0, -1, 5000}) {
    const Caught error = caught([&] { make_engine({.depth = depth}); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says(std::to_string(depth)));
  }
  CHECK(parse_engine_kind("auto") == EngineKind::automatic);
  CHECK(parse_engine_kind("uring") == EngineKind::uring);
  CHECK(parse_engine_kind("threads") == EngineKind::threads);
  CHECK(caught([] { parse_engine_kind("aio"); }).says("'aio'"));
}

}  // namespace s3io::testing::engine_test
