// Whatever fails, at whichever step: the old file or the new one, and a typed error.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cerrno>

#include "writing.h"

namespace s3io::testing::object_writer_faults_test {

constexpr int64_t kBytes = 2'500'000;
constexpr int64_t kMany = 1000;  // more than a writer makes of either kind

std::shared_ptr<const FaultPlan> nth_write(int64_t number, Fault fault) {
  return std::make_shared<FaultPlan>(FaultPlan{.by_number = {{number, fault}}});
}

std::shared_ptr<const FaultPlan> nth_call(int64_t number, int error_number) {
  return std::make_shared<FaultPlan>(FaultPlan{.by_call = {{number, error_number}}});
}

struct Outcome {
  std::optional<Error> error;
  WriteCounters counters;
};

class OverwrittenFile {
 public:
  explicit OverwrittenFile(int64_t size = kBytes) : fresh(random_bytes(size, 2)) {
    write_file(path, old);
  }

  // Writes the new bytes over the old ones. They must be there afterwards if no error is thrown,
  // and the old ones if one is.
  std::optional<Error> overwrite(WriteEngine::Options options) {
    engine = std::make_shared<WriteEngine>(std::move(options), nullptr);
    std::optional<Error> error;
    try {
      ObjectWriter writer(path, std::nullopt, engine);
      writer.write(fresh, kNoCallback);
      writer.finish(kNoCallback);
    } catch (const Error& thrown) {
      error = thrown;
      CHECK(std::string(thrown.what()).find(path) != std::string::npos);
    }
    const bool in_place = error && std::string(error->what()).find("in place") != std::string::npos;
    CHECK(holds(path, error && !in_place ? old : fresh));
    write_file(path, old);
    return error;
  }

  std::vector<std::string> entries() const { return entries_of(folder.path("")); }

  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes old = random_bytes(1000, 1);
  const Bytes fresh;
  std::shared_ptr<WriteEngine> engine;
};

bool is_retried(int error_number) { return error_number == EINTR || error_number == EAGAIN; }

TEST_CASE("whichever write fails, the file is the old one and the error is typed") {
  const LeakCheck leaks;
  OverwrittenFile file;
  for (const EngineKind kind : engines_here()) {
    for (const int error_number : {EIO, EINTR, EAGAIN, ENOSPC, EDQUOT, EFBIG, EBADF, ENOMEM}) {
      int64_t failed = 0;
      for (int64_t number = 0; number < kMany; ++number) {
        const auto error = file.overwrite(
            {.engine = kind, .faults = nth_write(number, {.error_number = error_number})});
        if (number >= file.engine->counters().requests) break;
        CHECK(error.has_value() != is_retried(error_number));
        ++failed;
        if (!error) continue;
        const bool is_full = kind_of_errno(error_number) == ErrorKind::no_space;
        if (is_full) CHECK(error->kind() == ErrorKind::no_space);
        if (error_number == EIO) CHECK(error->kind() == ErrorKind::write);
        const std::string where = message("at byte ", number * WriteEngine::kBlockBytes, ":");
        CHECK(std::string(error->what()).find(where) != std::string::npos);
      }
      CHECK(failed >= 3);  // blocks of 1 MiB
      CHECK(file.entries() == std::vector<std::string>{"data"});
    }
  }
}

TEST_CASE("whichever write is short, it is continued") {
  const LeakCheck leaks;
  OverwrittenFile file;
  for (const EngineKind kind : engines_here()) {
    for (const DirectMode mode : {DirectMode::automatic, DirectMode::off}) {
      for (int64_t number = 0; number < kMany; ++number) {
        CHECK_FALSE(file.overwrite(
            {.direct = mode, .engine = kind, .faults = nth_write(number, {.short_read = true})}));
        if (number >= file.engine->counters().requests) break;
        CHECK(file.engine->counters().short_writes == 1);
      }
    }
    FaultPlan always{.fault_probability = 1, .random_faults = {{.short_read = true}}};
    CHECK_FALSE(
        file.overwrite({.engine = kind, .faults = std::make_shared<FaultPlan>(std::move(always))}));
    CHECK(file.engine->counters().short_writes >= 8);
  }
}

TEST_CASE("a refused direct write falls back under auto, and is an error under require") {
  OverwrittenFile file;
  if (!direct_reads_work(file.path)) return;
  CHECK_FALSE(file.overwrite({.faults = nth_write(1, {.error_number = EINVAL})}));
  CHECK(file.engine->counters().direct_refused == 1);
  CHECK(file.engine->counters().buffered_bytes > 0);
  const auto error = file.overwrite(
      {.direct = DirectMode::require, .faults = nth_write(1, {.error_number = EINVAL})});
  REQUIRE(error);
  CHECK(error->kind() == ErrorKind::direct_io);
}

TEST_CASE("whichever system call fails, the file is the old one and the error is typed") {
  const LeakCheck leaks;
  OverwrittenFile file(100'000);
  for (const bool sync : {true, false}) {
    for (const int error_number : {EIO, EINTR, ENOSPC, EACCES, EROFS, EDQUOT, ENOMEM}) {
      int64_t errors = 0;
      for (int64_t number = 0; number < 12; ++number) {
        const auto error = file.overwrite({.sync = sync, .faults = nth_call(number, error_number)});
        errors += error.has_value() ? 1 : 0;
      }
      // create, cut, (sync,) rename(, sync of the folder); reserving space and keeping the checksum
      // may fail for some of these without harm.
      if (error_number == EINTR) {
        CHECK(errors == 0);
      } else {
        CHECK(errors >= (sync ? 5 : 3));
      }
      CHECK(file.entries() == std::vector<std::string>{"data"});
    }
  }
}

// Kills a writer at one step after the other, until there is none any more. Whether the new file
// was in place, after each.
std::vector<bool> kill_at_each(const OverwrittenFile& file,
                               const std::function<std::shared_ptr<const FaultPlan>(int64_t)>& at) {
  std::vector<bool> is_fresh;
  for (int64_t number = 0; number < 12; ++number) {
    write_file(file.path, file.old);
    const std::string death = run_in_child([&] {
      ObjectWriter writer(
          file.path, std::nullopt,
          std::make_shared<WriteEngine>(
              WriteEngine::Options{.engine = EngineKind::threads, .faults = at(number)}, nullptr));
      writer.write(file.fresh, kNoCallback);
      writer.finish(kNoCallback);
    });
    if (death.empty()) break;
    CHECK(death.find("signal 9") != std::string::npos);
    const std::optional<Bytes> now = content_of(file.path);
    CHECK((now == file.old || now == file.fresh));
    is_fresh.push_back(now == file.fresh);
    remove_abandoned(file.folder.path(""));
    CHECK(file.entries() == std::vector<std::string>{"data"});
  }
  return is_fresh;
}

TEST_CASE("a process that is killed at whichever step leaves the old file or the new one") {
  const OverwrittenFile file;
  CHECK(kill_at_each(file, [](int64_t number) { return nth_call(number, kFaultKill); }).size() >=
        6);
  const auto at_write = [](int64_t number) {
    return nth_write(number, {.error_number = kFaultKill});
  };
  CHECK(kill_at_each(file, at_write) == std::vector<bool>(3, false));  // blocks of 1 MiB
}

TEST_CASE("a lost write is a timeout, and what it may still touch is never used again") {
  // In a child: the engine, the file and the buffer stay behind on purpose.
  CHECK(run_in_child([] {
          const TemporaryFolder folder;
          const auto engine =
              write_engine({.timeout_s = 0.2,
                            .engine = EngineKind::threads,
                            .faults = nth_write(1, {.lost = true})},
                           std::make_shared<BufferPool>(BufferPoolConfig{2, 4 << 20, 4096}));
          ObjectWriter writer(folder.path("data"), std::nullopt, engine);
          const Caught error = caught([&] {
            writer.write(random_bytes(kBytes, 1), kNoCallback);
            writer.finish(kNoCallback);
          });
          require_in_child(error.kind == ErrorKind::write_timeout, error.text);
          require_in_child(engine->pool()->stats().in_use == 1, "the buffer is free");
          require_in_child(entries_of(folder.path("")).empty(), "the temporary file is left");
        }) == "");
}

TEST_CASE("what was lent is held for as long as a write may touch it") {
  const TemporaryFolder folder;
  const AlignedBuf memory = AlignedBuf::allocate(4 << 20, 4096);
  std::weak_ptr<int> owner;
  const auto lend = [&](ObjectWriter& writer) {
    const auto lent = std::make_shared<int>();
    owner = lent;
    writer.lend(memory.bytes(), lent, kNoCallback);
    writer.take_returned();
  };
  for (const Fault& fault : {Fault{.delay = 5}, Fault{.short_read = true}}) {
    const auto engine = write_engine({.faults = nth_write(3, fault)});
    ObjectWriter writer(folder.path("data"), std::nullopt, engine);
    lend(writer);
    if (fault.delay > 0) CHECK_FALSE(owner.expired());
    writer.finish(kNoCallback);
    writer.take_returned();
    CHECK(owner.expired());
  }
  ObjectWriter failing(folder.path("data"), std::nullopt,
                       write_engine({.faults = nth_write(3, {.error_number = EIO})}));
  const Caught failure = caught([&] {
    lend(failing);
    failing.finish(kNoCallback);
  });
  CHECK(failure.kind == ErrorKind::write);
  failing.take_returned();
  CHECK(owner.expired());
  // In a child: what the lost write refers to stays behind on purpose.
  CHECK(run_in_child([&] {
          const auto engine = write_engine({.timeout_s = 0.2,
                                            .engine = EngineKind::threads,
                                            .faults = nth_write(3, {.lost = true})});
          {
            ObjectWriter writer(folder.path("data"), std::nullopt, engine);
            lend(writer);
            const Caught error = caught([&] { writer.finish(kNoCallback); });
            require_in_child(error.kind == ErrorKind::write_timeout, error.text);
            require_in_child(writer.take_returned().empty(), "the owner was returned");
          }
          require_in_child(!owner.expired(), "the owner was let go of");
        }) == "");
}

TEST_CASE("a callback that throws cancels the write") {
  OverwrittenFile file;
  const auto engine = write_engine({.faults = nth_write(1, {.delay = 5})});
  ObjectWriter writer(file.path, std::nullopt, engine);
  writer.write(file.fresh, kNoCallback);
  CHECK_THROWS_AS(writer.finish([] { throw std::runtime_error("interrupted"); }),
                  std::runtime_error);
  CHECK(holds(file.path, file.old));
  CHECK_FALSE(writer.is_open());
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("the limit of file sizes is an error that says so") {
  const TemporaryFolder folder;
  CHECK(run_in_child([&] {
          ::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
          ::setrlimit(RLIMIT_FSIZE, &limit);
          for (const bool is_known : {false, true}) {
            const Caught error = caught([&] {
              ObjectWriter writer(folder.path("data"),
                                  is_known ? std::optional(kBytes) : std::nullopt,
                                  write_engine({.engine = EngineKind::threads}));
              writer.write(random_bytes(kBytes, 1), kNoCallback);
              writer.finish(kNoCallback);
            });
            require_in_child(error.kind == ErrorKind::no_space, error.text);
            require_in_child(error.says("ulimit -f"), error.text);
          }
        }) == "");
  CHECK(entries_of(folder.path("")).empty());
}

}  // namespace s3io::testing::object_writer_faults_test
