// What can go wrong while a store reads: right bytes or a typed error, and afterwards the pool is
// whole and nothing is left.
#include <doctest/doctest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <optional>

#include "forbid.h"
#include "leak_check.h"
#include "store_fixture.h"
#include "testing.h"

namespace s3io::testing::file_store_faults_test {

constexpr int64_t kFileBytes = 300'123;
const std::vector<int> kErrors{EIO,   EINTR,  EAGAIN,     EINVAL, ENOMEM,
                               EBADF, EFAULT, EOPNOTSUPP, ENXIO};

struct Case {
  EngineKind engine;
  DirectMode mode;
  bool with_pool;
};

class Scene {
 public:
  Scene() : path_(folder_.path("data")), contents_(random_bytes(kFileBytes, 60)) {
    write_file(path_, contents_);
  }

  const std::string& path() const { return path_; }
  const Bytes& contents() const { return contents_; }

  std::vector<Case> cases() const {
    std::vector<Case> all;
    for (const EngineKind engine : engines_here()) {
      for (const DirectMode mode : modes_for(path_)) {
        for (const bool with_pool : {true, false}) all.push_back({engine, mode, with_pool});
      }
    }
    return all;
  }

  FileStore store(const Case& that, const FaultPlan& plan, double timeout_s = 30) const {
    FileSystemConfig config = small_chunks(that.mode);
    config.range_engine.range_timeout_s = timeout_s;
    if (that.with_pool) config.buffer_pool = {.capacity = 3, .buffer_size = 1 << 19};
    return FileStore(config, that.engine, std::make_shared<FaultPlan>(plan));
  }

  // Reads the file whole; what comes is right. Then reads a part of it, which finds all in order.
  std::optional<Error> run(const Case& that, const FaultPlan& plan,
                           FileStoreStats* stats = nullptr) const {
    FileStore files = store(that, plan);
    std::optional<Error> failure;
    try {
      const ObjectData data = files.get(path_, {});
      CHECK(is_range(data, contents_, 0, kFileBytes));
    } catch (const Error& error) {
      failure = error;
    }
    CHECK(is_range(files.get_range(path_, {77, 5000}, {}), contents_, 77, 5000));
    CHECK(files.stats().pool.in_use == 0);
    if (stats != nullptr) *stats = files.stats();
    return failure;
  }

 private:
  TemporaryFolder folder_;
  std::string path_;
  Bytes contents_;
};

TEST_CASE("the Nth read of a store fails, for every N and errno: right bytes or a typed error") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    CAPTURE(name_of(that.engine));
    CAPTURE(name_of(that.mode));
    FileStoreStats calm;
    REQUIRE_FALSE(scene.run(that, {}, &calm).has_value());
    REQUIRE(calm.requests == 6);  // five chunks, and the one of the second read
    for (int64_t number = 0; number < calm.requests - 1; ++number) {
      for (const int error_number : kErrors) {
        CAPTURE(errno_text(error_number));
        FaultPlan plan;
        plan.by_number[number] = {.error_number = error_number};
        FileStoreStats stats;
        const std::optional<Error> failure = scene.run(that, plan, &stats);
        const bool retried = error_number == EINTR || error_number == EAGAIN;
        // What the page cache fails to give is read directly, which works.
        const bool mended = retried || that.mode == DirectMode::automatic;
        CHECK(failure.has_value() == !mended);
        if (mended) CHECK(stats.retries + stats.direct_refused == 1);
        if (!failure) continue;
        const bool refused = that.mode == DirectMode::require && error_number == EINVAL;
        CHECK(failure->kind() == (refused ? ErrorKind::direct_io : ErrorKind::read));
        CHECK(std::string(failure->what()).find(scene.path()) != std::string::npos);
        const std::string name = errno_text(error_number).substr(0, 5);
        CHECK(std::string(failure->what()).find(name) != std::string::npos);
      }
    }
  }
}

TEST_CASE("the Nth read of a store is short, for every N: right bytes") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    for (int64_t number = 0; number < 5; ++number) {
      FaultPlan plan;
      plan.by_number[number] = {.short_read = true};
      FileStoreStats stats;
      CHECK_FALSE(scene.run(that, plan, &stats).has_value());
      CHECK(stats.short_reads >= 1);
    }
  }
}

TEST_CASE("a store's reads fail, are short and late in any order, at random: right bytes") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      FaultPlan plan{.seed = seed, .fault_probability = 0.4, .reorder = true};
      plan.random_faults = {
          {.error_number = EINTR}, {.error_number = EAGAIN}, {.short_read = true}, {.delay = 5}};
      CHECK_FALSE(scene.run(that, plan).has_value());
    }
  }
}

// In a child, since what cannot be taken back is given up for good.
std::string read_losing_one(const Scene& scene, const Case& that, const FaultPlan& plan,
                            ErrorKind expected, const std::string& text) {
  return run_in_child([&] {
    FileStore store = scene.store(that, plan, 0.1);
    std::optional<Error> failure;
    try {
      store.get(scene.path(), {});
    } catch (const Error& error) {
      failure = error;
    }
    require_in_child(failure.has_value(), "nothing was noticed");
    require_in_child(failure->kind() == expected, failure->what());
    require_in_child(std::string(failure->what()).find(text) != std::string::npos, failure->what());
    const int64_t lost = that.with_pool ? 1 : 0;
    require_in_child(store.stats().pool.in_use == lost, "not just the one buffer is given up");
    for (int round = 0; round < 3; ++round) {  // with another queue, which has lost nothing yet
      const ObjectData data = store.get_range(scene.path(), {5, 1000}, {});
      require_in_child(is_range(data, scene.contents(), 5, 1000), "wrong bytes afterwards");
    }
    require_in_child(store.stats().pool.in_use == lost, "the other buffers are not usable");
  });
}

TEST_CASE("a read that does not come back is a timeout naming the setting; its buffer is lost") {
  const LeakCheck leaks;
  const Scene scene;
  FaultPlan plan;
  plan.by_number[4] = {.lost = true};
  for (const Case& that : scene.cases()) {
    CHECK(read_losing_one(scene, that, plan, ErrorKind::read_timeout,
                          "RangeEngineConfig.range_timeout") == "");
  }
}

TEST_CASE("an engine that fails while reads are in flight is an error; the buffer is lost") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    // The first read waits twice at least: four chunks in flight, then the fifth.
    CHECK(run_in_child([&] {
            FileStore store = scene.store(that, {.failing_wait = 0});
            for (int64_t lost = 1; lost <= 2; ++lost) {
              bool failed = false;
              try {
                store.get(scene.path(), {});
              } catch (const Error& error) {
                failed = error.kind() == ErrorKind::read;
              }
              require_in_child(failed, "nothing was noticed");
              require_in_child(store.stats().pool.in_use == (that.with_pool ? lost : 0),
                               "the kernel may write into a buffer that went back");
            }
          }) == "");
  }
}

TEST_CASE("a refused direct read is warned of once, naming the file") {
  const LeakCheck leaks;
  const Scene scene;
  if (!direct_reads_work(scene.path())) return;
  make_cold(scene.path());
  FaultPlan plan;
  plan.by_number[0] = {.error_number = EINVAL};
  FileStore store = scene.store({EngineKind::automatic, DirectMode::automatic, false}, plan);
  CHECK(is_range(store.get_range(scene.path(), {0, 1000}, {}), scene.contents(), 0, 1000));
  const std::vector<std::string> warnings = store.take_warnings();
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find(scene.path()) != std::string::npos);
  CHECK(warnings[0].find("O_DIRECT") != std::string::npos);
  CHECK(is_range(store.get(scene.path(), {}), scene.contents(), 0, kFileBytes));
  CHECK(store.take_warnings().empty());
}

TEST_CASE("threads in place of io_uring are warned of once, with the reason") {
  const LeakCheck leaks;
  const Scene scene;
  CHECK(run_in_child([&] {
          forbid(SYS_io_uring_setup, EPERM);
          FileStore store = scene.store({EngineKind::automatic, DirectMode::off, false}, {});
          require_in_child(store.take_warnings().empty(), "a warning before the first read");
          store.get(scene.path(), {});
          const std::vector<std::string> warnings = store.take_warnings();
          require_in_child(warnings.size() == 1, "not one warning");
          require_in_child(warnings[0].find("io_uring") != std::string::npos, warnings[0]);
          store.get(scene.path(), {});
          require_in_child(store.take_warnings().empty(), "warned twice");
          FileStore wanted = scene.store({EngineKind::threads, DirectMode::off, false}, {});
          wanted.get(scene.path(), {});
          require_in_child(wanted.take_warnings().empty(), "threads were asked for");
        }) == "");
}

TEST_CASE("the ready-made configurations are what their names say, and work") {
  const LeakCheck leaks;
  const FileSystemConfig direct = FileSystemConfig::with_direct_io();
  CHECK(direct.direct_io == DirectMode::require);
  REQUIRE(direct.buffer_pool.has_value());
  CHECK(direct.buffer_pool->capacity == 32);
  CHECK(direct.buffer_pool->buffer_size == 64 << 20);
  CHECK(direct.buffer_pool->alignment == 4096);
  const FileSystemConfig fast = FileSystemConfig::high_performance();
  CHECK(fast.direct_io == DirectMode::automatic);
  CHECK(fast.range_engine.chunk_size > direct.range_engine.chunk_size);
  CHECK(fast.range_engine.max_concurrent_ranges > direct.range_engine.max_concurrent_ranges);
  const Scene scene;
  for (const FileSystemConfig& config : {FileSystemConfig{}, direct, fast}) {
    if (config.direct_io == DirectMode::require && !direct_reads_work(scene.path())) continue;
    FileStore store(config, EngineKind::automatic);
    CHECK(is_range(store.get(scene.path(), {}), scene.contents(), 0, kFileBytes));
    CHECK(store.stats().pool.taken == (config.buffer_pool ? 1 : 0));
    CHECK((store.stats().direct_bytes > 0) == (config.direct_io == DirectMode::require));
  }
}

}  // namespace s3io::testing::file_store_faults_test
