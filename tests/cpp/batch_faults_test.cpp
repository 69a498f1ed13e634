// What can go wrong while batches are read: right bytes or a typed error, and afterwards the pool
// is whole and nothing is left.
#include <doctest/doctest.h>

#include <cerrno>
#include <optional>

#include "data_set.h"
#include "leak_check.h"
#include "reader/batch_reader.h"
#include "testing.h"

namespace s3io::testing::batch_faults_test {

constexpr int64_t kBatch = 6;

// Two files, read in five batches, one of them across the files; most batches are several reads.
class Scene {
 public:
  Scene()
      : data_(bytes_layout(700), 13, {17, 11}, 90),
        plan_(sequential_order(28), 0, {.batch_size = kBatch}) {}

  const DataSet& data() const { return data_; }
  const EpochPlan& plan() const { return plan_; }

  SourceOptions options(EngineKind engine, DirectMode direct, const FaultPlan& faults) const {
    SourceOptions options;
    options.engine = engine;
    options.direct = direct;
    options.chunk_bytes = 1024;
    options.depth = 4;
    options.faults = std::make_shared<FaultPlan>(faults);
    return options;
  }

  // Reads until the end or the first error. What is delivered is right, and what the pool lent is
  // back.
  std::optional<Error> run(const SourceOptions& options, int64_t* requests = nullptr) const {
    const auto source = data_.source(options);
    const auto pool = make_pool(*source, kBatch, 3);
    std::optional<Error> failure;
    {
      BatchReader reader(source, plan_, pool);
      Batch batch;
      int64_t number = 0;
      try {
        std::vector<int64_t> records;
        for (; reader.next(batch); ++number) {
          plan_.records(number, records);
          CHECK(data_.holds(batch, records));
        }
      } catch (const Error& error) {
        failure = error;
        CHECK_FALSE(reader.next(batch));
      }
      if (!failure) CHECK(number == plan_.num_groups());
    }
    CHECK(is_whole(*pool));
    CHECK(source->counters().quarantined_buffers == 0);
    if (requests != nullptr) *requests = source->counters().reads.requests;
    return failure;
  }

 private:
  DataSet data_;
  EpochPlan plan_;
};

bool is_read_error(const Error& error) {
  const bool names_file = std::string(error.what()).find("torch_s3io_test_") != std::string::npos;
  return names_file && (error.kind() == ErrorKind::read || error.kind() == ErrorKind::direct_io);
}

TEST_CASE("the Nth read of an epoch fails or is short, for every N: right bytes or a typed error") {
  const LeakCheck leaks;
  const Scene scene;
  for (const EngineKind engine : engines_here()) {
    for (const DirectMode mode : scene.data().modes()) {
      CAPTURE(name_of(engine));
      CAPTURE(name_of(mode));
      int64_t requests = 0;
      REQUIRE_FALSE(scene.run(scene.options(engine, mode, {}), &requests).has_value());
      for (int64_t number = 0; number < requests; ++number) {
        CAPTURE(number);
        for (const int error_number : {0, EIO, EINTR, EINVAL, ENOMEM}) {
          FaultPlan plan;
          plan.by_number[number] = {.error_number = error_number, .short_read = error_number == 0};
          const auto failure = scene.run(scene.options(engine, mode, plan));
          if (error_number == 0 || error_number == EINTR) CHECK_FALSE(failure.has_value());
          if (mode == DirectMode::off && error_number == EIO) CHECK(failure.has_value());
          if (failure) CHECK(is_read_error(*failure));
        }
      }
    }
  }
}

TEST_CASE("faults and any order, all at random: right bytes or a typed error") {
  const LeakCheck leaks;
  const Scene scene;
  for (const EngineKind engine : engines_here()) {
    for (const DirectMode mode : scene.data().modes()) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        FaultPlan plan{.seed = seed, .fault_probability = 0.2, .reorder = true};
        plan.random_faults = {
            {.error_number = EINTR}, {.error_number = EAGAIN}, {.short_read = true}};
        if (seed % 2 == 0) {
          CHECK_FALSE(scene.run(scene.options(engine, mode, plan)).has_value());
          continue;
        }
        plan.random_faults.push_back({.error_number = EIO});
        const auto failure = scene.run(scene.options(engine, mode, plan));
        if (failure) CHECK(is_read_error(*failure));
      }
    }
  }
}

// Takes the first batch, changes the second file, and goes on.
template <typename Change>
Caught error_after(Change change) {
  const Scene scene;
  const auto source = scene.data().source({.direct = DirectMode::automatic});
  const auto pool = make_pool(*source, kBatch, 1);  // no reading ahead of the change
  BatchReader reader(source, scene.plan(), pool);
  Batch batch;
  REQUIRE(reader.next(batch));
  change(scene.data().path(1));
  const Caught error = caught([&] {
    for (int64_t number = 1; reader.next(batch); ++number) {
      std::vector<int64_t> records;
      scene.plan().records(number, records);
      CHECK(scene.data().holds(batch, records));
    }
  });
  CHECK(error.says(scene.data().path(1)));
  batch = Batch();
  CHECK(is_whole(*pool));
  return error;
}

TEST_CASE("a file that changes while the epoch is read is an error, never wrong bytes") {
  const LeakCheck leaks;
  CHECK(error_after([](const std::string& path) {
          std::filesystem::resize_file(path, 1000);
        }).kind == ErrorKind::file_changed);
  CHECK(error_after([](const std::string& path) {
          write_file(path + ".new",
                     random_bytes(static_cast<int64_t>(std::filesystem::file_size(path)), 5));
          std::filesystem::rename(path + ".new", path);
        }).kind == ErrorKind::file_changed);
  CHECK(error_after([](const std::string& path) { std::filesystem::remove(path); }).kind ==
        ErrorKind::not_found);
}

TEST_CASE("a file that changes while it is open is noticed by the batch that reads it") {
  const LeakCheck leaks;
  for (const DirectMode mode : Scene().data().modes()) {
    const DataSet changing(bytes_layout(3000), 0, {40}, 92);
    const auto source = changing.source({.direct = mode});
    const auto pool = make_pool(*source, 4, 1);
    BatchReader reader(source, EpochPlan(sequential_order(40), 0, {.batch_size = 4}), pool);
    Batch batch;
    REQUIRE(reader.next(batch));
    std::filesystem::resize_file(changing.path(0), 200'000);  // every read still succeeds
    const Caught error = caught([&] {
      reader.next(batch);  // may have been read before the change
      reader.next(batch);
    });
    CHECK(error.kind == ErrorKind::file_changed);
    CHECK(error.says(changing.path(0)));
    CHECK(is_whole(*pool));
  }
}

TEST_CASE("an engine that is refused is the error of the first batch") {
  const LeakCheck leaks;
  const Scene scene;
  SourceOptions options = scene.options(EngineKind::threads, DirectMode::off, {});
  options.depth = 0;
  const auto failure = scene.run(options);
  REQUIRE(failure.has_value());
  CHECK(failure->kind() == ErrorKind::config);
}

// In a child, since what cannot be taken back is given up for good.
std::string read_losing_one(const Scene& scene, EngineKind engine, bool with_pool) {
  return run_in_child([&] {
    FaultPlan plan;
    plan.by_number[9] = {.lost = true};
    SourceOptions options = scene.options(engine, DirectMode::off, plan);
    options.read_timeout_s = 0.2;
    const auto source = scene.data().source(options);
    const auto pool = with_pool ? make_pool(*source, kBatch, 3) : nullptr;
    std::optional<Error> failure;
    {
      BatchReader reader(source, scene.plan(), pool);
      Batch batch;
      try {
        std::vector<int64_t> records;
        for (int64_t number = 0; reader.next(batch); ++number) {
          scene.plan().records(number, records);
          require_in_child(scene.data().holds(batch, records), "wrong bytes");
        }
      } catch (const Error& error) {
        failure = error;
      }
    }
    require_in_child(failure.has_value(), "the lost read was not noticed");
    require_in_child(failure->kind() == ErrorKind::read_timeout, failure->what());
    require_in_child(std::string(failure->what()).find("read_timeout_s") != std::string::npos,
                     "the setting is not named");
    require_in_child(source->counters().quarantined_buffers == 1, "not counted as quarantined");
    if (!with_pool) return;
    require_in_child(pool->stats().in_use == 1, "the pool lost more than the one buffer");
    for (int64_t left = 2; left > 0; --left) {
      require_in_child(pool->try_take(1).has_value(), "the other buffers are not usable");
    }
  });
}

TEST_CASE("a read that never comes back is a timeout error, and only its buffer is given up") {
  const LeakCheck leaks;
  const Scene scene;
  for (const EngineKind engine : engines_here()) {
    for (const bool with_pool : {true, false}) {
      CHECK(read_losing_one(scene, engine, with_pool) == "");
    }
  }
}

}  // namespace s3io::testing::batch_faults_test
