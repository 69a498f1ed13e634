// An engine that cannot wait any more, as when io_uring_enter fails: nobody knows what is in flight
// then, so the buffers and requests are given up for good. In children, where that is no leak.
#include <doctest/doctest.h>

#include <optional>

#include "data_set.h"
#include "io/fault_engine.h"
#include "io/read_queue.h"
#include "leak_check.h"
#include "read_set.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "testing.h"

namespace s3io::testing::engine_failure_test {

SourceOptions failing_options(EngineKind engine, int64_t failing_wait) {
  SourceOptions options;
  options.engine = engine;
  options.direct = DirectMode::off;
  options.faults = std::make_shared<FaultPlan>(FaultPlan{.failing_wait = failing_wait});
  return options;
}

void require_engine_failure(const std::optional<Error>& failure) {
  require_in_child(failure.has_value(), "nothing was noticed");
  require_in_child(failure->kind() == ErrorKind::read, failure->what());
}

template <typename Call>
std::optional<Error> failure_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

TEST_CASE("a queue whose engine fails says that its memory must not be used again") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(100'000, 61));
  for (const EngineKind engine : engines_here()) {
    CHECK(run_in_child([&] {
            DirectFile file(path, DirectMode::off, 0);
            file.keep_open();
            ReadCounters counters;
            const FaultPlan plan{.failing_wait = 0};
            auto queue = std::make_unique<ReadQueue>(
                with_faults(make_engine({.kind = engine, .depth = 4}), &plan), ReadQueueOptions{},
                &counters);
            auto reads = std::make_unique<ReadSet>(file, std::vector<ByteRange>{{0, 1000}});
            reads->push(*queue);
            std::vector<RangeRead*> finished;
            require_engine_failure(failure_of([&] { queue->run(finished, kWaitSlice); }));
            require_in_child(!queue->abandon(milliseconds(1000)), "the memory is said to be free");
            static_cast<void>(queue.release());
            static_cast<void>(reads.release());
          }) == "");
  }
}

TEST_CASE("a reader whose engine fails delivers the error, and its buffers are quarantined") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(700), 13, {17, 11}, 62);
  const EpochPlan plan(sequential_order(28), 0, {.batch_size = 6});
  for (const EngineKind engine : engines_here()) {
    for (int64_t failing_wait = 0; failing_wait < 3; ++failing_wait) {
      CHECK(run_in_child([&] {
              const auto source = data.source(failing_options(engine, failing_wait));
              const auto pool = make_pool(*source, 6, 3);
              Batch batch;
              {
                BatchReader reader(source, plan, pool);
                require_engine_failure(failure_of([&] {
                  std::vector<int64_t> records;
                  for (int64_t number = 0; reader.next(batch); ++number) {
                    plan.records(number, records);
                    require_in_child(data.holds(batch, records), "wrong bytes");
                  }
                }));
              }
              batch = Batch();
              const int64_t lost = source->counters().quarantined_buffers;
              require_in_child(lost >= 1, "a buffer with reads in flight went back");
              require_in_child(pool->stats().in_use == lost, "more is lost than was counted");
            }) == "");
    }
  }
}

TEST_CASE("a fetcher whose engine fails throws the error, and the buffer is quarantined") {
  const LeakCheck leaks;
  const DataSet data(bytes_layout(1000), 0, {20}, 63);
  for (const EngineKind engine : engines_here()) {
    CHECK(run_in_child([&] {
            const auto source = data.source(failing_options(engine, 0));
            const auto pool = make_pool(*source, 3, 3);
            BatchFetcher fetcher(source, pool);
            Batch batch;
            require_engine_failure(failure_of([&] { fetcher.fetch({0, 5, 10}, batch); }));
            require_in_child(source->counters().quarantined_buffers == 1, "not counted");
            require_in_child(pool->stats().in_use == 1, "more than one buffer is lost");
          }) == "");
  }
}

}  // namespace s3io::testing::engine_failure_test
