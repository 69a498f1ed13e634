// Files that are written whole or not at all, against plain reads.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <map>

#include "base/align.h"
#include "store/file_store.h"
#include "writing.h"

namespace s3io::testing::object_writer_test {

constexpr int64_t kMiB = int64_t{1} << 20;

std::vector<std::shared_ptr<BufferPool>> pools() {
  const auto pool = [](int64_t buffer_bytes) {
    return std::make_shared<BufferPool>(BufferPoolConfig{2, buffer_bytes, 4096});
  };
  return {nullptr, pool(100'000), pool(16 * kMiB)};
}

TEST_CASE("chunks of any size give the file that was meant, with its checksum") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  write_file(folder.path("probe"), {});
  std::mt19937_64 random(1);
  std::map<int64_t, std::pair<Bytes, uint32_t>> files;  // by size, with their sums
  for (const int64_t size :
       {int64_t{0}, int64_t{1}, int64_t{4096}, int64_t{100'001}, 3 * kMiB + 5}) {
    const Bytes contents = random_bytes(size, static_cast<uint64_t>(size));
    files[size] = {contents, crc32c_by_tables(0, contents)};
  }
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : modes_for(folder.path("probe"))) {
      for (const auto& pool : pools()) {
        const auto engine = write_engine({.direct = mode, .engine = kind}, pool);
        for (const auto& file : files) {
          const int64_t size = file.first;
          const auto& [contents, sum] = file.second;
          const std::string path = folder.path("data");
          const bool is_known = random() % 2 == 0;
          ObjectWriter writer(path, is_known ? std::optional(size) : std::nullopt, engine);
          const WrittenObject written = write_in_chunks(writer, contents, random, 300'000);
          CAPTURE(size);
          CHECK(holds(path, contents));
          CHECK(written.size_bytes == size);
          CHECK(written.crc32c == sum);
        }
        if (pool) CHECK(pool->stats().in_use == 0);
      }
    }
  }
  CHECK(entries_of(folder.path("")).size() == 2);
}

TEST_CASE("whatever alignment is asked for, files are written and summed right") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const AlignedBuf memory = AlignedBuf::allocate(6 * kMiB, kHugePageBytes);
  const Bytes contents = random_bytes(6 * kMiB, 1);
  std::memcpy(memory.data(), contents.data(), contents.size());
  std::mt19937_64 random(1);
  std::map<int64_t, uint32_t> sums;  // by size
  constexpr int kPowers = 12;        // of two, between the least alignment and the largest
  for (int64_t alignment = 512; alignment <= kHugePageBytes;
       alignment <<= kPowers / rounds(kPowers)) {
    const int64_t block = std::max(kMiB, alignment);
    for (const int64_t buffer_bytes : {int64_t{0}, int64_t{100'000}, 5 * kMiB}) {
      FileSystemConfig config;
      config.alignment = alignment;
      config.sync_writes = false;
      if (buffer_bytes > 0) {
        config.buffer_pool = BufferPoolConfig{2, buffer_bytes, std::max(alignment, kPageBytes)};
      }
      FileStore store(config, EngineKind::automatic);
      for (const int64_t size : {int64_t{1}, alignment - 1, alignment + 1, block, block + 1,
                                 2 * block - 1, 2 * block + alignment}) {
        CAPTURE(alignment);
        CAPTURE(buffer_bytes);
        CAPTURE(size);
        const Bytes expected(contents.begin(), contents.begin() + size);
        if (!sums.contains(size)) sums[size] = crc32c_by_tables(0, expected);
        const uint32_t sum = sums[size];
        const auto writer =
            store.writer(path, random() % 2 == 0 ? std::optional(size) : std::nullopt);
        CHECK(write_in_chunks(*writer, expected, random, 1'500'000).crc32c == sum);
        CHECK(holds(path, expected));
        // As one piece, which lies where direct writes may begin.
        store.put(path, memory.bytes().first(static_cast<size_t>(size)), kNoCallback);
        CHECK(holds(path, expected));
        const FileChecksum read = store.checksum(path, kNoCallback);
        CHECK(read.crc32c == sum);
        CHECK(read.size_bytes == size);
      }
    }
  }
}

TEST_CASE("aligned memory goes to the device without a copy, odd memory with one") {
  const TemporaryFolder folder;
  write_file(folder.path("probe"), {});
  if (!direct_reads_work(folder.path("probe"))) return;
  FileSystemConfig config;
  config.sync_writes = false;
  FileStore store(config, EngineKind::automatic);
  const AlignedBuf memory = AlignedBuf::allocate(20 * kMiB + 4096, 4096);
  const Bytes contents = random_bytes(20 * kMiB + 4096, 1);
  std::memcpy(memory.data(), contents.data(), contents.size());
  const std::span<const std::byte> all = memory.bytes();

  store.put(folder.path("data"), all.first(20 * kMiB), kNoCallback);
  CHECK(store.stats().write_copied_bytes == 0);
  CHECK(store.stats().direct_written_bytes == 20 * kMiB);

  store.put(folder.path("data"), all.first(5 * kMiB + 10), kNoCallback);
  CHECK(store.stats().write_copied_bytes == 10);  // the tail
  CHECK(holds(folder.path("data"), Bytes(contents.begin(), contents.begin() + 5 * kMiB + 10)));

  const auto writer = store.writer(folder.path("data"), std::nullopt);
  writer->write(all.first(20 * kMiB), kNoCallback);  // long enough to wait for
  CHECK(store.stats().write_copied_bytes == 10);
  writer->finish(kNoCallback);
  CHECK(holds(folder.path("data"), Bytes(contents.begin(), contents.begin() + 20 * kMiB)));

  store.put(folder.path("data"), all.subspan(1, 20 * kMiB), kNoCallback);
  CHECK(store.stats().write_copied_bytes == 20 * kMiB + 10);
  CHECK(holds(folder.path("data"), Bytes(contents.begin() + 1, contents.begin() + 20 * kMiB + 1)));
}

// What a test lends, and how much of it the writer has not let go of.
class Lender {
 public:
  void lend(ObjectWriter& writer, std::span<const std::byte> data) {
    auto owner = std::make_shared<int>();
    lent_.push_back(owner);
    writer.lend(data, std::move(owner), kNoCallback);
  }
  int64_t held() const {
    return std::ranges::count_if(lent_, [](const auto& owner) { return !owner.expired(); });
  }

 private:
  std::vector<std::weak_ptr<int>> lent_;
};

TEST_CASE("lent chunks of any size give the file that was meant, and are let go of") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(folder.path("probe"), {});
  std::mt19937_64 random(1);
  const AlignedBuf memory = AlignedBuf::allocate(6 * kMiB, 4096);
  const Bytes contents = random_bytes(6 * kMiB, 1);
  std::memcpy(memory.data(), contents.data(), contents.size());
  const uint32_t sum = crc32c_by_tables(0, contents);
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : modes_for(folder.path("probe"))) {
      for (const auto& pool : pools()) {
        for (int round = 0; round < rounds(4); ++round) {
          const auto engine = write_engine({.direct = mode, .engine = kind}, pool);
          ObjectWriter writer(path, std::nullopt, engine);
          Lender lender;
          std::span<const std::byte> rest = memory.bytes();
          while (!rest.empty()) {
            // Whole blocks, or odd bytes: what follows these is copied until a block is full.
            const size_t unit = random() % 4 == 0 ? 1 : 4096;
            const auto count = std::min<size_t>(rest.size(), unit * (random() % 300));
            if (random() % 2 == 0) {
              lender.lend(writer, rest.first(count));
            } else {
              writer.write(rest.first(count), kNoCallback);
            }
            rest = rest.subspan(count);
          }
          const WrittenObject written = writer.finish(kNoCallback);
          CHECK(holds(path, contents));
          CHECK(written.crc32c == sum);
          writer.take_returned();
          CHECK(lender.held() == 0);
        }
        if (pool) CHECK(pool->stats().in_use == 0);
      }
    }
  }
}

TEST_CASE("lent blocks are not copied, however short, and eight of them are held") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(folder.path("probe"), {});
  if (!direct_reads_work(folder.path("probe"))) return;
  const AlignedBuf memory = AlignedBuf::allocate(4 * kMiB, 4096);
  const Bytes contents = random_bytes(4 * kMiB, 1);
  std::memcpy(memory.data(), contents.data(), contents.size());
  for (const EngineKind kind : engines_here()) {
    const auto engine = write_engine({.direct = DirectMode::require, .engine = kind});
    ObjectWriter writer(path, std::nullopt, engine);
    Lender lender;
    for (size_t begin = 0; begin < contents.size(); begin += 64 << 10) {
      lender.lend(writer, memory.bytes().subspan(begin, 64 << 10));
      writer.take_returned();
      CHECK(lender.held() <= WriteEngine::kDepth);
    }
    CHECK(engine->counters().copied_bytes == 0);
    writer.finish(kNoCallback);
    writer.take_returned();
    CHECK(lender.held() == 0);
    CHECK(holds(path, contents));

    FaultPlan late;
    late.by_number[3] = {.delay = 5};  // its last write
    ObjectWriter cancelled(path, std::nullopt,
                           write_engine({.direct = DirectMode::require,
                                         .engine = kind,
                                         .faults = std::make_shared<FaultPlan>(late)}));
    lender.lend(cancelled, memory.bytes());
    CHECK(cancelled.take_returned().empty());
    CHECK(lender.held() == 1);
    cancelled.cancel();
    CHECK(cancelled.take_returned().size() == 1);
    CHECK(lender.held() == 0);
    CHECK(holds(path, contents));
  }
}

TEST_CASE("rows are spread to their stride, with zeros in between") {
  const TemporaryFolder folder;
  const auto engine = write_engine({});
  const Bytes rows = random_bytes(700 * 1000, 2);
  ObjectWriter writer(folder.path("data"), std::nullopt, engine);
  writer.write_rows(std::span(rows).first(700 * 400), 700, 1024, kNoCallback);
  writer.write_rows(std::span(rows).subspan(700 * 400), 700, 1024, kNoCallback);
  CHECK(writer.size() == 1000 * 1024);
  const WrittenObject written = writer.finish(kNoCallback);
  Bytes expected;
  for (int64_t row = 0; row < 1000; ++row) {
    expected.insert(expected.end(), rows.begin() + row * 700, rows.begin() + (row + 1) * 700);
    expected.resize(expected.size() + 324);
  }
  CHECK(holds(folder.path("data"), expected));
  CHECK(written.crc32c == crc32c_by_tables(0, expected));
}

TEST_CASE("sizes that make no rows are refused, and the writer goes on") {
  const TemporaryFolder folder;
  ObjectWriter writer(folder.path("data"), std::nullopt, write_engine({}));
  const Bytes rows = random_bytes(12, 1);
  struct Sizes {
    int64_t row_bytes, stride_bytes;
  };
  for (const Sizes sizes : {Sizes{0, 0}, {0, 4}, {-4, 4}, {4, 3}, {4, -8}, {5, 8}, {24, 24}}) {
    CAPTURE(sizes.row_bytes);
    const Caught error =
        caught([&] { writer.write_rows(rows, sizes.row_bytes, sizes.stride_bytes, kNoCallback); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("no rows of"));
  }
  writer.write_rows(rows, 12, 12, kNoCallback);
  CHECK(writer.finish(kNoCallback).size_bytes == 12);
  CHECK(holds(folder.path("data"), rows));
}

}  // namespace s3io::testing::object_writer_test
