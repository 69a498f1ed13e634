// Batches in order, with the right records, whatever the layout, the engine and the pool.
#include "reader/batch_reader.h"

#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <thread>
#include <utility>

#include "data_set.h"
#include "leak_check.h"
#include "testing.h"

namespace s3io::testing::batch_reader_test {

// Reads the whole plan and checks every batch. Returns how many there were.
int64_t read_all(const DataSet& data, const std::shared_ptr<RecordSource>& source,
                 const EpochPlan& plan, const std::shared_ptr<BufferPool>& pool,
                 const BatchReader::Options& options = {}) {
  BatchReader reader(source, plan, pool, options);
  Batch batch;
  int64_t number = 0;
  std::vector<int64_t> records;
  for (; reader.next(batch); ++number) {
    plan.records(number, records);
    REQUIRE(data.holds(batch, records));
  }
  CHECK(number == plan.num_groups());
  return number;
}

TEST_CASE("all batches are right for random layouts, engines, modes, pools and plans") {
  const LeakCheck leaks;
  std::mt19937_64 random(80);
  const std::vector<EngineKind> engines = engines_here();
  for (int round = 0; round < rounds(150); ++round) {
    CAPTURE(round);
    const auto header =
        static_cast<int64_t>(random() % 3 == 0 ? random() % 600 : random() % 2 * 128);
    std::vector<int64_t> counts(1 + random() % 4);
    for (int64_t& count : counts) count = static_cast<int64_t>(random() % 40);
    counts[0] += 1;
    const DataSet data(random_layout(random), header, counts, random());
    const std::vector<DirectMode> modes = data.modes();
    SourceOptions options;
    options.direct = modes[random() % modes.size()];
    options.engine = engines[random() % engines.size()];
    options.chunk_bytes = random() % 2 == 0 ? 1 : 1 << 20;
    options.depth = static_cast<int>(1 + random() % 8);
    options.with_record_numbers = random() % 2 == 0;
    const auto source = data.source(options);
    const auto window = static_cast<int64_t>(random() % 60);
    const RecordOrderPtr order =
        window == 0 ? sequential_order(data.num_records())
                    : window_order(block_order(data.num_records(), 5, random()), window, random());
    const EpochPlan plan(order, 0,
                         {.batch_size = static_cast<int64_t>(1 + random() % 12),
                          .drop_last = random() % 2 == 0,
                          .worker = 0,
                          .num_workers = static_cast<int64_t>(1 + random() % 2),
                          .group_size = static_cast<int64_t>(1 + random() % 3)});
    if (random() % 2 == 0) data.make_files_cold();
    const auto capacity = static_cast<int64_t>(random() % 9);
    const auto pool =
        capacity > 0 ? make_pool(*source, plan.max_group_records(), capacity) : nullptr;
    const int64_t batches =
        read_all(data, source, plan, pool,
                 {.fill_block_bytes = random() % 2 == 0 ? 4096 : 0,
                  .windows = {.window_positions = window, .share = 0, .count = 1}});
    CHECK(source->counters().batches == batches);
    if (pool != nullptr) {
      CHECK(pool->stats().taken == batches);
      CHECK(is_whole(*pool));
    }
  }
}

TEST_CASE("neighbouring records are delivered where the device wrote them, without a copy") {
  const DataSet data(bytes_layout(777), 13, {50}, 81);
  for (const DirectMode mode : data.modes()) {
    const auto source = data.source({.direct = mode});
    read_all(data, source, EpochPlan(sequential_order(50), 0, {.batch_size = 8}),
             make_pool(*source, 8, 4));
    CHECK(source->counters().copied_bytes == 0);
    CHECK(source->counters().spilled_batches == 0);
    CHECK(source->counters().batch_bytes == 50 * 777);
  }
}

TEST_CASE("a data set without records has no batches") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(10), 5, {0, 0}, 82);
  const auto source = data.source({});
  CHECK(read_all(data, source, EpochPlan(sequential_order(0), 0, {}), nullptr) == 0);
}

TEST_CASE("the reader reads ahead as far as the pool allows, and no further") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {40}, 83);
  const auto source = data.source({});
  const auto pool = make_pool(*source, 4, 3);
  const EpochPlan plan(sequential_order(40), 0, {.batch_size = 4});
  BatchReader reader(source, plan, pool);
  CHECK(holds_soon([&] { return source->counters().finished_batches == 3; }));
  CHECK(pool->stats().in_use == 3);
  Batch batch;
  REQUIRE(reader.next(batch));
  CHECK(data.holds(batch, {0, 1, 2, 3}));
  CHECK(source->counters().finished_batches == 3);  // the consumer still holds the first one
  REQUIRE(reader.next(batch));                      // and now gave it back
  CHECK(holds_soon([&] { return source->counters().finished_batches == 4; }));
  CHECK(pool->stats().in_use == 3);
}

TEST_CASE(
    "the next epoch is read while this one's last batches are consumed, and goes on from there") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(700), 0, {40, 3}, 85);
  const RecordOrderPtr order = shuffled_order(43, 1);
  for (const int64_t group_size : {1, 3}) {
    for (const int64_t capacity : {0, 2, 64}) {
      CAPTURE(capacity);
      const auto source = data.source({});
      const EpochPlan first(order, 5, {.batch_size = 4, .group_size = group_size, .start = 17});
      const auto pool = capacity > 0
                            ? make_pool(*source, first.following().max_group_records(), capacity)
                            : nullptr;
      BatchReader reader(source, first, pool, {.reads_on = true});
      Batch batch;
      std::vector<int64_t> records;
      EpochPlan plan = first;
      for (int epoch = 0; epoch < 4; ++epoch) {
        CHECK_FALSE(reader.begin_next_epoch(plan.following()));  // not at its end
        for (int64_t group = 0; group < plan.num_groups(); ++group) {
          REQUIRE(reader.next(batch));
          plan.records(group, records);
          REQUIRE(data.holds(batch, records));
        }
        CHECK_FALSE(reader.next(batch));
        CHECK_FALSE(reader.next(batch));
        CHECK_FALSE(reader.begin_next_epoch(plan));
        CHECK_FALSE(reader.begin_next_epoch(EpochPlan(order, 5 + epoch + 1, {.batch_size = 5})));
        plan = plan.following();
        REQUIRE(reader.begin_next_epoch(plan));
      }
    }
  }
}

TEST_CASE("before the next epoch begins its first batches are there already") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(700), 0, {40}, 86);
  const auto source = data.source({});
  const auto pool = make_pool(*source, 4, 5);
  const EpochPlan plan(sequential_order(40), 0, {.batch_size = 4});
  for (const bool reads_on : {false, true}) {
    const int64_t before = source->counters().finished_batches;
    BatchReader reader(source, plan, pool, {.reads_on = reads_on});
    Batch batch;
    while (reader.next(batch)) {
    }
    const int64_t expected = reads_on ? 15 : 10;  // as many more as the pool has buffers
    CHECK(holds_soon([&] { return source->counters().finished_batches - before == expected; }));
    CHECK(reader.begin_next_epoch(plan.following()) == reads_on);
  }
  CHECK(is_whole(*pool));
}

TEST_CASE("no further buffer is taken while the engine has all the reads that it takes") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {60}, 64);
  CHECK(run_in_child([&] {
          FaultPlan nothing_returns{.fault_probability = 1};
          nothing_returns.random_faults = {{.lost = true}};
          SourceOptions options;
          options.direct = DirectMode::off;
          options.chunk_bytes = 1000;
          options.depth = 2;  // of the ten reads of a batch
          options.read_timeout_s = 0.2;
          options.faults = std::make_shared<FaultPlan>(nothing_returns);
          const auto source = data.source(options);
          const auto pool = make_pool(*source, 10, 4);
          BatchReader reader(source, EpochPlan(sequential_order(60), 0, {.batch_size = 10}), pool);
          Batch batch;
          bool timed_out = false;
          try {
            reader.next(batch);
          } catch (const Error& error) {
            timed_out = error.kind() == ErrorKind::read_timeout;
          }
          require_in_child(timed_out, "no timeout");
          require_in_child(pool->stats().peak == 1, "more than one buffer was taken");
        }) == "");
}

TEST_CASE("a consumer that keeps every batch gets copies, counted, and is never stuck") {
  const LeakCheck leaks;
  std::mt19937_64 random(84);
  const DataSet data(random_layout(random), 0, {60}, 84);
  for (int64_t capacity = 1; capacity <= 8; ++capacity) {
    for (const bool numbers : {false, true}) {
      const auto source = data.source({.with_record_numbers = numbers});
      const auto pool = make_pool(*source, 4, capacity);
      const EpochPlan plan(sequential_order(60), 0, {.batch_size = 4});
      BatchReader reader(source, plan, pool);
      std::vector<Batch> kept;
      std::vector<void*> owners;  // as tensors hold them
      for (Batch batch; reader.next(batch);) {
        owners.push_back(batch.buffer.detach());
        kept.push_back(std::exchange(batch, Batch()));
      }
      REQUIRE(kept.size() == 15);
      const int64_t lent = std::max<int64_t>(0, capacity >= 4 ? capacity - 2 : capacity - 1);
      CHECK(source->counters().spilled_batches == 15 - lent);
      CHECK(pool->stats().in_use == lent);
      std::vector<int64_t> records;
      for (int64_t number = 0; number < 15; ++number) {  // none was overwritten by a later one
        plan.records(number, records);
        CHECK(data.has_rows(kept[static_cast<size_t>(number)].view, records));
      }
      for (void* owner : owners) AlignedBuf::free_detached(owner);
      CHECK(is_whole(*pool));
    }
  }
}

TEST_CASE("a reader may be closed after any number of batches") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(3000), 7, {30, 30}, 85);
  for (const EngineKind engine : engines_here()) {
    for (int64_t wanted = 0; wanted <= 12; ++wanted) {
      const auto source = data.source({.engine = engine});
      const auto pool = make_pool(*source, 5, 4);
      BatchReader reader(source, EpochPlan(sequential_order(60), 0, {.batch_size = 5}), pool);
      Batch batch;
      for (int64_t number = 0; number < wanted; ++number) REQUIRE(reader.next(batch));
      reader.close();
      reader.close();
      CHECK_FALSE(reader.next(batch));
      batch = Batch();
      CHECK(is_whole(*pool));
    }
  }
}

TEST_CASE("whoever waits for a batch may give up, which closes the reader") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(100), 0, {10}, 86);
  const auto source = data.source({});
  const auto pool = make_pool(*source, 5, 1);
  {
    const AlignedBuf taken_by_another = pool->take(1, 0);
    BatchReader reader(source, EpochPlan(sequential_order(10), 0, {.batch_size = 5}), pool);
    Batch batch;
    CHECK_THROWS_AS(reader.next(batch, [] { throw std::runtime_error("interrupted"); }),
                    std::runtime_error);
    CHECK_FALSE(reader.next(batch));
  }
  CHECK(is_whole(*pool));
}

TEST_CASE("several readers share one pool") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(2000), 0, {100}, 87);
  const auto source = data.source({});
  const auto pool = make_pool(*source, 4, 3);
  std::atomic<int64_t> right{0};
  std::vector<std::thread> threads;
  for (int64_t worker = 0; worker < 3; ++worker) {
    threads.emplace_back([&, worker] {
      const EpochPlan plan(sequential_order(100), 0,
                           {.batch_size = 4, .worker = worker, .num_workers = 3});
      BatchReader reader(source, plan, pool);
      std::vector<int64_t> records;
      Batch batch;
      for (int64_t number = 0; reader.next(batch); ++number) {
        plan.records(number, records);
        right += data.holds(batch, records) ? 1 : 0;
        batch = Batch();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 25);
  CHECK(is_whole(*pool));
}

TEST_CASE("a pool whose buffers are too small or not aligned is refused, with the numbers") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {10}, 88);
  const auto source = data.source({});
  const EpochPlan plan(sequential_order(10), 0, {.batch_size = 4});
  const int64_t needed = source->form().most_bytes(4);
  const auto make = [&](const BufferPoolConfig& config) {
    BatchReader reader(source, plan, std::make_shared<BufferPool>(config));
  };
  const Caught too_small = caught([&] { make({.capacity = 2, .buffer_size = needed - 1}); });
  CHECK(too_small.kind == ErrorKind::config);
  CHECK(too_small.says(std::to_string(needed)));
  CHECK(too_small.says("BufferPoolConfig.buffer_size"));
  if (source->alignment() == 1) return;
  const Caught unaligned =
      caught([&] { make({.capacity = 2, .buffer_size = needed, .alignment = 64}); });
  CHECK(unaligned.kind == ErrorKind::config);
  CHECK(unaligned.says("BufferPoolConfig.alignment"));
}

TEST_CASE("a fork while a reader lives disturbs neither process") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(2000), 0, {40}, 89);
  for (const EngineKind engine : engines_here()) {
    const auto source = data.source({.engine = engine});
    const auto pool = make_pool(*source, 4, 3);
    const EpochPlan plan(sequential_order(40), 0, {.batch_size = 4});
    auto reader = std::make_unique<BatchReader>(source, plan, pool);
    Batch batch;
    REQUIRE(reader->next(batch));
    CHECK(run_in_child([&] {
            require_in_child(data.holds(batch, {0, 1, 2, 3}), "the child cannot see the batch");
            bool refused = false;
            try {
              Batch other;
              reader->next(other);
            } catch (const Error& error) {
              refused = error.kind() == ErrorKind::config;
            }
            require_in_child(refused, "the child could read on");
            batch = Batch();
            reader.reset();
          }) == "");
    CHECK(data.holds(batch, {0, 1, 2, 3}));
    std::vector<int64_t> records;
    for (int64_t number = 1; reader->next(batch); ++number) {
      plan.records(number, records);
      CHECK(data.holds(batch, records));
    }
    CHECK(source->counters().batches == 10);
    reader.reset();
    CHECK(is_whole(*pool));
  }
}

TEST_CASE("a reader that another thread closes ends the wait for a batch with an error") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(700), 0, {40}, 87);
  for (int round = 0; round < 20; ++round) {
    const auto source = data.source({});
    const auto pool = make_pool(*source, 4, 2);
    BatchReader reader(source, EpochPlan(sequential_order(40), 0, {.batch_size = 4}), pool);
    std::vector<Batch> held(2);
    REQUIRE(reader.next(held[0]));
    std::thread closer;
    const Caught error = caught([&] {
      while (reader.next(held[1], [&] {
        if (!closer.joinable()) closer = std::thread([&] { reader.close(); });
      })) {
        if (!closer.joinable()) closer = std::thread([&] { reader.close(); });
      }
      throw Error(ErrorKind::config, "the reader is closed");  // closed between two calls
    });
    CHECK(error.says("closed"));
    closer.join();
  }
}

TEST_CASE("an order of more records than the files have is refused") {
  const DataSet data(bytes_layout(10), 0, {5}, 88);
  const EpochPlan plan(sequential_order(6), 0, {.batch_size = 2});
  const Caught error = caught([&] { BatchReader reader(data.source({}), plan, nullptr); });
  CHECK(error.kind == ErrorKind::config);
}

}  // namespace s3io::testing::batch_reader_test
