// Every way in which a read can go wrong, at every read: right bytes or a typed error.
#include <doctest/doctest.h>

#include <cerrno>
#include <optional>

#include "io/fault_engine.h"
#include "io/read_queue.h"
#include "leak_check.h"
#include "read_set.h"
#include "testing.h"

namespace s3io::testing::read_queue_faults_test {

const std::vector<int> kErrors{EIO,   EINTR,  EAGAIN,     EINVAL, ENOMEM,
                               EBADF, EFAULT, EOPNOTSUPP, ENXIO};

struct Case {
  EngineKind engine;
  DirectMode mode;
  bool cold;
  bool probes_cache = true;
  bool fills_cache = false;
};

struct Outcome {
  std::vector<Error> errors;
  int64_t requests = 0;
  int64_t retries = 0;
  int64_t direct_refused = 0;
  int64_t direct_bytes = 0;
};

// A file of a few dozen reads: ranges that are one chunk, several, unaligned, and at the end.
class Scene {
 public:
  Scene() : path_(folder_.path("data")), contents_(random_bytes(kFileBytes, 14)) {
    write_file(path_, contents_);
  }

  std::vector<Case> cases() const {
    std::vector<Case> all;
    for (const EngineKind engine : engines_here()) {
      for (const DirectMode mode : modes_for(path_)) {
        for (const bool cold : {false, true}) {
          if (cold && mode == DirectMode::require) continue;  // the page cache does not matter
          all.push_back({engine, mode, cold});
          if (mode == DirectMode::require) continue;
          all.push_back({.engine = engine, .mode = mode, .cold = cold, .fills_cache = true});
        }
      }
    }
    return all;
  }

  Outcome run(const Case& that, const FaultPlan& plan, int depth = 4) const {
    if (that.cold) make_cold(path_);
    DirectFile file(path_, that.mode, 0);
    if (!that.probes_cache) file.refuse_cache_probes();
    ReadCounters counters;
    Outcome outcome;
    {
      ReadQueue queue(
          std::make_unique<FaultEngine>(make_engine({.kind = that.engine, .depth = depth}), plan),
          {.chunk_bytes = 8192, .fill_block_bytes = that.fills_cache ? 16'384 : 0}, &counters);
      ReadSet reads(file, {{0, 20'000}, {700, 1}, {30'001, 9'000}, {kFileBytes - 900, 900}});
      reads.run(queue);
      outcome.errors = reads.check(contents_);
    }
    outcome.requests = counters.requests;
    outcome.retries = counters.retries;
    outcome.direct_refused = counters.direct_refused;
    outcome.direct_bytes = counters.direct_bytes;
    return outcome;
  }

 private:
  static constexpr int64_t kFileBytes = 40'123;
  TemporaryFolder folder_;
  std::string path_;
  Bytes contents_;
};

// What must become of a single failed read: repeated, replaced by a direct one where the page cache
// failed or by one through the page cache where the direct one was refused, or an error that names
// it.
void check_single_fault(const Case& that, int error_number, const Outcome& outcome) {
  const bool retried = error_number == EINTR || error_number == EAGAIN;
  const bool refused_once = outcome.direct_refused > 0;
  if (refused_once) CHECK((that.mode == DirectMode::automatic && error_number == EINVAL));
  const bool cache_failed = that.mode == DirectMode::automatic && (!that.cold || that.fills_cache);
  if (cache_failed) CHECK(outcome.retries == 1);
  const bool replaced = refused_once || (cache_failed && outcome.direct_bytes > 0);
  CHECK(outcome.errors.size() == (retried || replaced ? 0 : 1));
  for (const Error& error : outcome.errors) {
    const bool refused = that.mode == DirectMode::require && error_number == EINVAL;
    CHECK(error.kind() == (refused ? ErrorKind::direct_io : ErrorKind::read));
    const std::string name = errno_text(error_number).substr(0, 5);
    CHECK(std::string(error.what()).find(name) != std::string::npos);
  }
}

TEST_CASE("the Nth read fails, for every N and errno: right bytes or a typed error") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    CAPTURE(name_of(that.engine));
    CAPTURE(name_of(that.mode));
    CAPTURE(that.cold);
    CAPTURE(that.fills_cache);
    const Outcome calm = scene.run(that, {});
    REQUIRE(calm.errors.empty());
    for (const int error_number : kErrors) {
      CAPTURE(errno_text(error_number));
      for (int64_t number = 0; number < calm.requests; ++number) {
        CAPTURE(number);
        FaultPlan plan;
        plan.by_number[number] = {.error_number = error_number};
        check_single_fault(that, error_number, scene.run(that, plan));
      }
    }
  }
}

TEST_CASE("the Nth read comes back short, for every N: right bytes") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    const int64_t requests = scene.run(that, {}).requests;
    for (int64_t number = 0; number < requests; ++number) {
      FaultPlan plan;
      plan.by_number[number] = {.short_read = true};
      CHECK(scene.run(that, plan).errors.empty());
    }
  }
}

TEST_CASE("interruptions, short reads and any order, all at random: right bytes") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      FaultPlan plan{.seed = seed, .fault_probability = 0.5, .reorder = true};
      plan.random_faults = {
          {.error_number = EINTR}, {.error_number = EAGAIN}, {.short_read = true}};
      CHECK(scene.run(that, plan).errors.empty());
    }
  }
}

TEST_CASE("late completions, alone and with short reads: right bytes") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      FaultPlan plan{.seed = seed, .fault_probability = 0.5, .reorder = true};
      plan.random_faults = {{.delay = 1}, {.delay = 20}, {.short_read = true, .delay = 3}};
      CHECK(scene.run(that, plan).errors.empty());
    }
  }
}

TEST_CASE("everything at random: right bytes or typed errors") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      FaultPlan plan{.seed = seed, .fault_probability = 0.3, .reorder = true};
      plan.random_faults = {{.short_read = true}};
      for (const int error_number : kErrors) {
        plan.random_faults.push_back({.error_number = error_number});
      }
      for (const Error& error : scene.run(that, plan).errors) {
        CHECK((error.kind() == ErrorKind::read || error.kind() == ErrorKind::direct_io));
      }
    }
  }
}

TEST_CASE("a read that is interrupted for ever fails in the end") {
  const LeakCheck leaks;
  const Scene scene;
  for (const Case& that : scene.cases()) {
    for (const int error_number : {EINTR, EAGAIN}) {
      FaultPlan plan{.fault_probability = 1};
      plan.random_faults = {{.error_number = error_number}};
      const Outcome outcome = scene.run(that, plan);
      CHECK(outcome.errors.size() == 4);
      for (const Error& error : outcome.errors) CHECK(error.kind() == ErrorKind::read);
    }
  }
}

TEST_CASE("interruptions are only counted while there is no progress") {
  const Scene scene;
  for (const EngineKind engine : engines_here()) {
    FaultPlan plan;  // a chunk is cut in half about ten times, and interrupted 30 times in between
    for (int64_t number = 0; number < 1000; ++number) {
      plan.by_number[number] = {.error_number = number % 31 < 30 ? EINTR : 0,
                                .short_read = number % 31 == 30};
    }
    CHECK(scene.run({engine, DirectMode::off, false}, plan, 1).errors.empty());
  }
}

TEST_CASE("a read that is always short still gets to its end") {
  const Scene scene;
  for (const Case& that : scene.cases()) {
    if (that.mode == DirectMode::require) continue;  // less than a block is no progress there
    FaultPlan plan{.fault_probability = 1};
    plan.random_faults = {{.short_read = true}};
    const Outcome outcome = scene.run(that, plan);
    if (that.mode == DirectMode::off) CHECK(outcome.errors.empty());
    for (const Error& error : outcome.errors) CHECK(error.kind() == ErrorKind::read);
  }
}

TEST_CASE("where direct reads turn out to be refused, auto reads the rest through the page cache") {
  const Scene scene;
  for (Case that : scene.cases()) {
    if (that.mode != DirectMode::automatic) continue;
    that.probes_cache = false;
    const Outcome calm = scene.run(that, {});
    FaultPlan plan;  // as many as are in flight when the first answer comes
    for (int64_t number = 0; number < 4; ++number)
      plan.by_number[number] = {.error_number = EINVAL};
    const Outcome outcome = scene.run(that, plan);
    CHECK(outcome.errors.empty());
    if (calm.direct_bytes == 0) continue;  // not even asked
    CHECK(outcome.direct_refused == 4);
    CHECK(outcome.direct_bytes == 0);
  }
}

}  // namespace s3io::testing::read_queue_faults_test
