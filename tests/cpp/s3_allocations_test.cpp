// Under way, a part of a range costs no allocation of ours: the memory of one request serves the
// next. (libcurl and OpenSSL have some of their own.)
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "http/etag.h"
#include "http/s3_objects.h"
#include "leak_check.h"
#include "scripted_transport.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(S3IO_HAS_LEAK_SANITIZER)  // which have allocators of their own

namespace {
thread_local int64_t allocations = 0;
}

void* operator new(size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace s3io::testing::s3_allocations_test {

constexpr int64_t kObjectBytes = 1'000'000;

// Answers at once with bytes that say where they are from. It allocates nothing itself.
class PlainS3 final : public Transport {
 public:
  void submit(HttpRequest& request) override {
    request.clear_reply();
    const ExpectedRange& range = *request.expected;
    char line[128];
    request.head.add_line("HTTP/1.1 206 Partial Content\r\n");
    request.head.add_line("ETag: \"0123456789abcdef0123456789abcdef-16\"\r\n");
    request.head.add_line("x-amz-request-id: 0123456789ABCDEF\r\n");
    std::snprintf(line, sizeof(line), "Content-Length: %ld\r\n", long{range.length});
    request.head.add_line(line);
    std::snprintf(line, sizeof(line), "Content-Range: bytes %ld-%ld/%ld\r\n", long{range.offset},
                  long{range.offset + range.length - 1}, long{kObjectBytes});
    request.head.add_line(line);
    REQUIRE(request.accept_head());
    for (int64_t at = 0; at < range.length; at += 100) {
      std::array<std::byte, 100> part;
      part.fill(static_cast<std::byte>((range.offset + at) / 100));
      REQUIRE(request.add_body(
          {part.data(), static_cast<size_t>(std::min<int64_t>(100, range.length - at))}));
    }
    request.finish_body();
    request.inbox->put(request);
  }
  void cancel(HttpRequest&) noexcept override {}
};

TEST_CASE("a part of a range costs no allocation once under way") {
  const std::string etag = "0123456789abcdef0123456789abcdef-16";
  S3Objects store({.s3 = scripted_config(), .part_bytes = 1000}, fixed_credentials(kCanary),
                  std::make_shared<PlainS3>());
  const auto object = store.open("s3://bucket/a folder/a shard with a long name.bin",
                                 {.size_bytes = kObjectBytes, .modified_ns = etag_number(etag)});
  ReadCounters counters;
  const auto reader = store.make_reader({.depth = 4}, counters);
  Bytes memory(10'000);
  std::vector<RangeRead*> finished;
  finished.reserve(1);
  RangeRead read;
  const auto read_range = [&](int64_t offset) {
    read = {.object = object.get(), .offset = offset, .length = 10'000, .data = memory.data()};
    reader->push(read);
    finished.clear();
    while (finished.empty()) reader->run(finished, kWaitSlice);
    REQUIRE_FALSE(read.error);
  };
  read_range(990'000);  // the longest number
  read_range(0);
  const int64_t before = allocations;
  for (int64_t offset = 0; offset < kObjectBytes; offset += 10'000) read_range(offset);
  CHECK(allocations == before);
  CHECK(counters.requests == 20 + 1000);
  CHECK(memory[100] == std::byte{9901 % 256});
  const auto unused = std::make_unique<int>(1);
  CHECK(allocations == before + 1);  // they are counted
}

}  // namespace s3io::testing::s3_allocations_test

#endif
