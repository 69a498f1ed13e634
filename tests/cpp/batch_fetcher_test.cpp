// Any records by number, in the calling thread.
#include "reader/batch_fetcher.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <limits>
#include <random>
#include <thread>

#include "data_set.h"
#include "leak_check.h"
#include "testing.h"

namespace s3io::testing::batch_fetcher_test {

std::vector<int64_t> random_records(std::mt19937_64& random, int64_t existing) {
  std::vector<int64_t> records(random() % 25);
  for (int64_t& record : records) {
    record = static_cast<int64_t>(random() % static_cast<uint64_t>(existing));
  }
  return records;
}

TEST_CASE("any records in any order, also none and the same one twice, are what was stored") {
  const LeakCheck leaks;
  std::mt19937_64 random(100);
  const std::vector<EngineKind> engines = engines_here();
  for (int round = 0; round < rounds(60); ++round) {
    CAPTURE(round);
    const auto header = static_cast<int64_t>(random() % 200);
    const DataSet data(random_layout(random), header, {5, 0, 20, 1}, random());
    const std::vector<DirectMode> modes = data.modes();
    SourceOptions options;
    options.direct = modes[random() % modes.size()];
    options.engine = engines[random() % engines.size()];
    options.depth = static_cast<int>(1 + random() % 8);
    options.with_record_numbers = random() % 2 == 0;
    const auto source = data.source(options);
    const auto pool = random() % 2 == 0 ? make_pool(*source, 25, 2) : nullptr;
    BatchFetcher fetcher(source, pool);
    for (int call = 0; call < 10; ++call) {
      const std::vector<int64_t> records = random_records(random, data.num_records());
      Batch batch;
      fetcher.fetch(records, batch);
      CHECK(data.holds(batch, records));
    }
    if (pool != nullptr) CHECK(is_whole(*pool));
  }
}

TEST_CASE("record numbers that do not exist are refused, and the next fetch works") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(100), 0, {5, 5}, 101);
  const auto source = data.source({});
  const auto pool = make_pool(*source, 4, 1);
  BatchFetcher fetcher(source, pool);
  Batch batch;
  for (const int64_t bad : {int64_t{-1}, int64_t{10}, std::numeric_limits<int64_t>::max()}) {
    const Caught error = caught([&] { fetcher.fetch({0, bad}, batch); });
    CHECK(error.kind == ErrorKind::range);
    CHECK(error.says(std::to_string(bad)));
  }
  fetcher.fetch({9, 0}, batch);
  CHECK(data.holds(batch, {9, 0}));
}

TEST_CASE(
    "a fetch never waits for a buffer: it gets memory of its own when the pool has none to lend") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {20}, 102);
  const auto source = data.source({});
  const auto pool = make_pool(*source, 4, 2);
  BatchFetcher fetcher(source, pool);
  std::vector<Batch> kept(5);
  for (Batch& batch : kept) fetcher.fetch({3, 2, 11}, batch);
  for (const Batch& batch : kept) CHECK(data.holds(batch, {3, 2, 11}));
  CHECK(pool->stats().in_use <= 2);
  kept.clear();
  CHECK(is_whole(*pool));
}

TEST_CASE("whoever gives up in the middle of a fetch can fetch again at once") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(5000), 0, {60}, 103);
  for (const EngineKind engine : engines_here()) {
    const auto source = data.source({.engine = engine, .chunk_bytes = 512, .depth = 2});
    const auto pool = make_pool(*source, 30, 2);
    BatchFetcher fetcher(source, pool);
    std::vector<int64_t> records(30);
    for (size_t index = 0; index < records.size(); ++index) {
      records[index] = static_cast<int64_t>(index) * 2;  // no neighbours: a read each
    }
    for (int round = 0; round < 5; ++round) {
      Batch batch;
      CHECK_THROWS_AS(
          fetcher.fetch(records, batch, [] { throw std::runtime_error("interrupted"); }),
          std::runtime_error);
      fetcher.fetch(records, batch);
      CHECK(data.holds(batch, records));
    }
    CHECK(is_whole(*pool));
    CHECK(source->counters().quarantined_buffers == 0);
  }
}

TEST_CASE("many threads fetch through one fetcher") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(900), 0, {50}, 104);
  for (const EngineKind engine : engines_here()) {
    const auto source = data.source({.engine = engine});
    const auto pool = make_pool(*source, 25, 3);
    BatchFetcher fetcher(source, pool);
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      threads.emplace_back([&, seed] {
        std::mt19937_64 random(seed);
        for (int call = 0; call < 25; ++call) {
          const std::vector<int64_t> records = random_records(random, 50);
          Batch batch;
          fetcher.fetch(records, batch);
          right += data.holds(batch, records) ? 1 : 0;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 100);
    CHECK(is_whole(*pool));
  }
}

TEST_CASE("a fetch whose reads fail is a typed error, and the next one works") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {20}, 105);
  for (const EngineKind engine : engines_here()) {
    for (int64_t number = 0; number < 3; ++number) {
      FaultPlan plan;
      plan.by_number[number] = {.error_number = EIO};
      SourceOptions options;
      options.engine = engine;
      options.direct = DirectMode::off;
      options.faults = std::make_shared<FaultPlan>(plan);
      const auto source = data.source(options);
      const auto pool = make_pool(*source, 3, 2);
      BatchFetcher fetcher(source, pool);
      Batch batch;
      const Caught error = caught([&] { fetcher.fetch({0, 5, 10}, batch); });
      CHECK(error.kind == ErrorKind::read);
      CHECK(error.says(data.path(0)));
      fetcher.fetch({0, 5, 10}, batch);
      CHECK(data.holds(batch, {0, 5, 10}));
      batch = Batch();
      CHECK(is_whole(*pool));
    }
  }
}

TEST_CASE("a read that never comes back is a timeout error, and only its buffer is given up") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {20}, 106);
  for (const EngineKind engine : engines_here()) {
    CHECK(run_in_child([&] {
            FaultPlan plan;
            plan.by_number[1] = {.lost = true};
            SourceOptions options;
            options.engine = engine;
            options.direct = DirectMode::off;
            options.read_timeout_s = 0.1;
            options.faults = std::make_shared<FaultPlan>(plan);
            const auto source = data.source(options);
            const auto pool = make_pool(*source, 3, 3);
            BatchFetcher fetcher(source, pool);
            Batch batch;
            bool timed_out = false;
            try {
              fetcher.fetch({0, 5, 10}, batch);
            } catch (const Error& error) {
              timed_out = error.kind() == ErrorKind::read_timeout;
            }
            require_in_child(timed_out, "no timeout");
            require_in_child(source->counters().quarantined_buffers == 1, "not counted");
            require_in_child(pool->stats().in_use == 1, "more than one buffer is lost");
          }) == "");
  }
}

TEST_CASE("a forked child cannot fetch through its parent's ring") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {20}, 107);
  for (const EngineKind engine : engines_here()) {
    auto fetcher = std::make_unique<BatchFetcher>(data.source({.engine = engine}), nullptr);
    Batch batch;
    fetcher->fetch({1}, batch);
    CHECK(run_in_child([&] {
            bool refused = false;
            try {
              Batch other;
              fetcher->fetch({2}, other);
            } catch (const Error& error) {
              refused = error.kind() == ErrorKind::config;
            }
            require_in_child(refused, "the child could fetch");
            fetcher.reset();
          }) == "");
    fetcher->fetch({3}, batch);
    CHECK(data.holds(batch, {3}));
  }
}

}  // namespace s3io::testing::batch_fetcher_test
