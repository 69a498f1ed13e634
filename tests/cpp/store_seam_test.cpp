// Whatever reads files reads any other store: one in memory, through the same batches, fetches,
// ranges and checksums.
#include <doctest/doctest.h>

#include "base/crc32c.h"
#include "data_set.h"
#include "leak_check.h"
#include "memory_store.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "store/composite_store.h"
#include "store/file_checksum.h"
#include "store/file_objects.h"
#include "store/range_engine.h"

namespace s3io::testing::store_seam_test {

std::shared_ptr<MemoryStore> store_of(const DataSet& data, size_t shards,
                                      const MemoryStore::Options& options) {
  auto store = std::make_shared<MemoryStore>(options);
  for (size_t shard = 0; shard < shards; ++shard)
    store->put(data.path(shard), data.contents(shard));
  return store;
}

TEST_CASE("batches come from any store, whatever its blocks and however few objects may be open") {
  const LeakCheck leaks;
  std::mt19937_64 random(170);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const std::vector<int64_t> counts{20, 0, 13, 7};
    const DataSet data(random_layout(random), static_cast<int64_t>(random() % 300), counts,
                       random());
    const int64_t block = random() % 2 == 0 ? 1 : 512;
    const auto max_open = static_cast<int64_t>(1 + random() % 4);
    const auto store = store_of(data, counts.size(),
                                {.block_bytes = block, .max_open = max_open, .seed = random()});
    const auto source = data.source_in(store, block, {.with_record_numbers = round % 2 == 0});
    const EpochPlan plan(shuffled_order(40, random()), 0, {.batch_size = 6});
    const auto pool = round % 3 == 0 ? nullptr : make_pool(*source, 6, 3);
    BatchReader reader(source, plan, pool);
    Batch batch;
    std::vector<int64_t> records;
    int64_t number = 0;
    for (; reader.next(batch); ++number) {
      plan.records(number, records);
      REQUIRE(data.holds(batch, records));
    }
    CHECK(number == plan.num_groups());
    // No batch begins while as many are open as may be; it may need as many by itself.
    CHECK(store->most_open_objects() < 2 * max_open);
    CHECK(reader.engine_name() == "memory");
    BatchFetcher fetcher(source, pool);
    fetcher.fetch({39, 0, 20, 0}, batch);
    CHECK(data.holds(batch, {39, 0, 20, 0}));
    batch = Batch();
    reader.close();
    CHECK(holds_soon([&] { return store->open_objects() == 0; }));
    if (pool != nullptr) CHECK(is_whole(*pool));
  }
}

// A store that takes its time to open things, and keeps what it is told.
class SlowToOpen final : public Store {
 public:
  explicit SlowToOpen(std::shared_ptr<MemoryStore> store) : store_(std::move(store)) {}

  ObjectInfo stat(const std::string& path) override { return store_->stat(path); }
  std::vector<std::string> list(const std::string& prefix) override { return store_->list(prefix); }
  std::shared_ptr<Object> open(const std::string& path) override { return store_->open(path); }
  std::shared_ptr<Object> open(const std::string& path, const ObjectVersion& version) override {
    return store_->open(path, version);
  }
  size_t open_all(std::span<const ObjectToOpen> wanted,
                  std::vector<std::shared_ptr<Object>>& out) override {
    opened_.push_back(paths_of(wanted));
    return Store::open_all(wanted, out) + (is_slow ? wanted.size() : 0);
  }
  void open_soon(std::span<const ObjectToOpen> wanted) override {
    announced_.push_back(paths_of(wanted));
  }
  int64_t max_open_objects() const override { return store_->max_open_objects(); }
  std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options,
                                           ReadCounters& counters) override {
    return store_->make_reader(options, counters);
  }

  using Paths = std::vector<std::string>;
  const std::vector<Paths>& opened() const { return opened_; }
  const std::vector<Paths>& announced() const { return announced_; }
  bool is_slow = true;

 private:
  static Paths paths_of(std::span<const ObjectToOpen> objects) {
    Paths paths;
    for (const ObjectToOpen& one : objects) paths.push_back(one.path);
    return paths;
  }

  const std::shared_ptr<MemoryStore> store_;
  std::vector<Paths> opened_;  // by the reader's thread
  std::vector<Paths> announced_;
};

TEST_CASE("a store that opens slowly is told before of what it will open next") {
  const DataSet data(bytes_layout(100), 0, std::vector<int64_t>(40, 3), 172);
  for (const int64_t max_open : {64, 5}) {  // batches in one wave, and in several
    for (const bool is_slow : {true, false}) {
      CAPTURE(max_open);
      const auto store =
          std::make_shared<SlowToOpen>(store_of(data, 40, {.max_open = max_open, .seed = 1}));
      store->is_slow = is_slow;
      const auto source = data.source_in(store, 1, {});
      const EpochPlan plan(shuffled_order(120, 9), 0, {.batch_size = 12});
      BatchReader reader(source, plan, make_pool(*source, 12, 3));
      Batch batch;
      int64_t batches = 0;
      while (reader.next(batch)) ++batches;
      CHECK(batches == 10);
      batch = Batch();
      reader.close();
      // In the order in which they are opened. A batch for which there was no room is not named.
      size_t named = 0;
      for (const SlowToOpen::Paths& opened : store->opened()) {
        named += named < store->announced().size() && store->announced()[named] == opened ? 1 : 0;
      }
      CHECK(named == store->announced().size());
      CHECK((named > 0) == is_slow);
      CHECK(named < store->opened().size());
    }
  }
}

struct Scene {
  explicit Scene(const MemoryStore::Options& options)
      : store(store_of(data, 2, options)),
        source(data.source_in(store, 1, {.read_timeout_s = 0.2})),
        pool(make_pool(*source, 4, 3)) {}

  // Error of the epoch, or none.
  Caught read() const {
    return caught([&] {
      BatchReader reader(source, plan, pool);
      Batch batch;
      while (reader.next(batch)) {
      }
    });
  }

  const DataSet data{bytes_layout(100), 0, {16, 16}, 171};
  const EpochPlan plan{sequential_order(32), 0, {.batch_size = 4}};
  const std::shared_ptr<MemoryStore> store;
  const std::shared_ptr<RecordSource> source;
  const std::shared_ptr<BufferPool> pool;
};

TEST_CASE("a read that fails is the error of its batch, and its buffer comes back") {
  const LeakCheck leaks;
  const Scene scene({.failing_read = 5});
  const Caught error = scene.read();
  CHECK(error.kind == ErrorKind::read);
  CHECK(error.says("this read fails"));
  CHECK(is_whole(*scene.pool));
}

TEST_CASE(
    "reads that never come end in a timeout, and cost no buffer where the store forgets them") {
  for (const bool forgets : {true, false}) {
    CAPTURE(forgets);
    [[maybe_unused]] const LeftBehind on_purpose;
    const Scene scene({.lost_reads_from = 5, .forgets = forgets});
    CHECK(scene.read().kind == ErrorKind::read_timeout);
    CHECK(is_whole(*scene.pool) == forgets);
    CHECK((scene.source->counters().quarantined_buffers == 0) == forgets);
  }
}

TEST_CASE("a fetch has an end as a whole, also where every read of it comes in time") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(100), 0, {400}, 173);
  const auto store = store_of(data, 1, {.slowness = milliseconds(40)});
  const auto source = data.source_in(store, 1, {.read_timeout_s = 0.2});
  std::vector<int64_t> records;
  for (int64_t record = 0; record < 400; record += 2) records.push_back(record);
  BatchFetcher fetcher(source, nullptr);
  Batch batch;
  // All of them take two seconds and more.
  CHECK(caught([&] { fetcher.fetch(records, batch); }).kind == ErrorKind::read_timeout);
}

TEST_CASE("an object that is replaced is noticed: before it is opened, and when it was read") {
  const LeakCheck leaks;
  const Scene before({});
  before.store->put(before.data.path(1), before.data.contents(1));
  const Caught error = before.read();
  CHECK(error.kind == ErrorKind::file_changed);
  CHECK(error.says(before.data.path(1)));

  const Scene meanwhile({});
  PendingBatch batch(*meanwhile.source);
  const auto reader = meanwhile.source->make_reader({});
  batch.records() = {0, 1};
  REQUIRE(batch.start(AlignedBuf::allocate(batch.place(), 64), -1, nullptr, *reader));
  meanwhile.store->put(meanwhile.data.path(0), meanwhile.data.contents(0));
  std::vector<RangeRead*> finished;
  while (batch.is_reading()) {
    finished.clear();
    reader->run(finished, kWaitSlice);
    for (const RangeRead* read : finished) batch.take_back(*read, *reader);
  }
  batch.finish();
  Batch out;
  CHECK(caught([&] { batch.deliver(out); }).kind == ErrorKind::file_changed);
}

// Every other object of the data in another store.
struct Spread {
  explicit Spread(const MemoryStore::Options& options) {
    std::map<std::string, std::shared_ptr<Store>> stores;
    const std::array<std::string, 3> prefixes{"", "one://a/", "one://b/"};
    for (const std::string& prefix : prefixes) {
      memory.push_back(std::make_shared<MemoryStore>(options));
      stores[prefix] = memory.back();
    }
    stores[""] = std::make_shared<FileObjects>(FileObjects::Options{});
    store = std::make_shared<CompositeStore>(std::move(stores));
    for (size_t shard = 0; shard < 6; ++shard) {
      const size_t place = shard % 3;
      paths.push_back(prefixes[place] + data.path(shard));
      if (place != 0) memory[place]->put(paths[shard], data.contents(shard));
    }
  }

  std::shared_ptr<RecordSource> source(double timeout_s = 10) const {
    return data.source_in(store, paths, 512, {.read_timeout_s = timeout_s});
  }

  std::mt19937_64 random{171};
  DataSet data{random_layout(random), 100, {20, 3, 13, 7, 0, 30}, 9};
  std::vector<std::shared_ptr<MemoryStore>> memory;
  std::shared_ptr<CompositeStore> store;
  std::vector<std::string> paths;
};

TEST_CASE("a batch has records of several stores, for all of which one thread waits") {
  const LeakCheck leaks;
  for (const milliseconds slowness : {milliseconds(0), milliseconds(1)}) {
    const Spread spread({.block_bytes = 512, .slowness = slowness});
    const auto source = spread.source();
    const EpochPlan plan(shuffled_order(73, 3), 0, {.batch_size = 9});
    const auto pool = make_pool(*source, 9, 3);
    BatchReader reader(source, plan, pool);
    Batch batch;
    std::vector<int64_t> records;
    int64_t number = 0;
    for (; reader.next(batch); ++number) {
      plan.records(number, records);
      REQUIRE(spread.data.holds(batch, records));
    }
    CHECK(number == plan.num_groups());
    CHECK(reader.engine_name() == "mixed");
    BatchFetcher fetcher(source, pool);
    fetcher.fetch({72, 0, 20, 0, 30}, batch);
    CHECK(spread.data.holds(batch, {72, 0, 20, 0, 30}));
  }
}

TEST_CASE("what goes wrong in one of several stores is the error of its batch") {
  const LeakCheck leaks;
  const auto read = [](const Spread& spread, double timeout_s) {
    const auto source = spread.source(timeout_s);
    const auto pool = make_pool(*source, 9, 3);
    return caught([&] {
      BatchReader reader(source, EpochPlan(shuffled_order(73, 3), 0, {.batch_size = 9}), pool);
      Batch batch;
      while (reader.next(batch)) {
      }
    });
  };
  CHECK(read(Spread({.failing_read = 2}), 10).kind == ErrorKind::read);
  CHECK(read(Spread({.lost_reads_from = 1}), 0.2).kind == ErrorKind::read_timeout);
  const Spread spread({});
  CHECK(caught([&] { spread.store->open("two://a/x"); }).kind == ErrorKind::config);
  CHECK(caught([&] { spread.store->open("one://c/x"); }).kind == ErrorKind::config);
  CHECK(spread.store->list("one://a/").size() == 2);
}

TEST_CASE("ranges and checksums of any store") {
  const LeakCheck leaks;
  for (const int64_t block : {1, 512}) {
    MemoryStore store({.block_bytes = block, .seed = 5});
    const Bytes bytes = random_bytes(9'000'000, 172);
    store.put("x", bytes);
    store.put("empty", {});
    CHECK(checksum_of_object(store, store.open("x"), 1, {}) ==
          FileChecksum{static_cast<int64_t>(bytes.size()), crc32c(0, bytes)});
    CHECK(checksum_of_object(store, store.open("empty"), 1, {}) == FileChecksum{0, 0});
    RangeEngine engine(store, {});
    const std::shared_ptr<Object> object = store.open("x");
    AlignedBuf buffer = AlignedBuf::allocate(6'001'024, 4096);
    engine.read(*object, {1000, 6'000'000}, buffer.data() + 1000 % block, buffer, {});
    CHECK(equals(buffer.data() + 1000 % block,
                 Bytes(bytes.begin() + 1000, bytes.begin() + 6'001'000)));
    CHECK(engine.engine_name() == "memory");
  }
  MemoryStore failing({.failing_read = 0});
  failing.put("x", Bytes(10));
  CHECK(caught([&] {
          checksum_of_object(failing, failing.open("x"), 1, {});
        }).says("this read fails"));
  MemoryStore silent({.lost_reads_from = 0});
  silent.put("x", Bytes(10));
  CHECK(caught([&] { checksum_of_object(silent, silent.open("x"), 0.1, {}); }).kind ==
        ErrorKind::read_timeout);
}

}  // namespace s3io::testing::store_seam_test
