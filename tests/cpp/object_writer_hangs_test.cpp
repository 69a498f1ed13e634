// System calls that never come back: every wait for them ends, and nothing is done behind the back
// of whoever gave up.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>

#include "store/timed_steps.h"
#include "writing.h"

namespace s3io::testing::object_writer_hangs_test {

constexpr int64_t kMostCalls = 20;  // more than a writer of one small file makes
constexpr double kLong_s = 60;
constexpr double kShort_s = 0.1;

struct Interrupted {};

std::shared_ptr<FaultPlan> hanging_call(int64_t number) {
  return std::make_shared<FaultPlan>(FaultPlan{.by_call = {{number, kFaultHang}}});
}

int64_t threads_now() { return Resources::now().threads; }

class HangingFile {
 public:
  HangingFile() { write_file(path, old); }

  // Writes the fresh bytes, while the n-th system call hangs; nothing if there are fewer.
  std::optional<Caught> overwrite(int64_t number, bool sync) {
    // What only is slow may exceed a short limit: then again, with a longer one.
    for (double limit_s = kShort_s; limit_s < kLong_s; limit_s *= 2) {
      plan = hanging_call(number);
      std::optional<Caught> error = attempt({.sync = sync, .timeout_s = limit_s, .faults = plan});
      if (!error || plan->hang->is_reached()) return error;
      release();
      write_file(path, old);
    }
    FAIL("no limit was long enough");
    return std::nullopt;
  }

  std::optional<Caught> attempt(WriteEngine::Options options) {
    try {
      ObjectWriter writer(path, std::nullopt,
                          std::make_shared<WriteEngine>(std::move(options), nullptr));
      writer.write(fresh, kNoCallback);
      writer.finish(kNoCallback);
    } catch (const Error& error) {
      return Caught{error.kind(), error.what()};
    }
    return std::nullopt;
  }

  // Of a small file of known size the calls are: creation, sync, rename, sync of the folder.
  std::shared_ptr<WriteEngine> engine_of_few_calls(double timeout_s, bool sync = true) const {
    return std::make_shared<WriteEngine>(WriteEngine::Options{.direct = DirectMode::off,
                                                              .sync = sync,
                                                              .checksums = false,
                                                              .timeout_s = timeout_s,
                                                              .faults = plan},
                                         nullptr);
  }

  std::shared_ptr<WriteEngine> engine_with_hanging_sync() {
    plan = hanging_call(1);
    return engine_of_few_calls(kLong_s);
  }

  std::shared_ptr<WriteEngine> engine_with_hanging_rename() {
    plan = hanging_call(1);
    return engine_of_few_calls(kLong_s, false);
  }

  // The n-th system call fails, and the removal after that hangs.
  Caught fail_and_hang(int64_t number, int error_number) {
    for (double limit_s = kShort_s; limit_s < kLong_s; limit_s *= 2) {
      plan = std::make_shared<FaultPlan>(
          FaultPlan{.by_call = {{number, error_number}, {number + 1, kFaultHang}}});
      const Caught error = caught([&] {
        ObjectWriter writer(path, 100, engine_of_few_calls(limit_s));
        writer.write(Bytes(100), kNoCallback);
        writer.finish(kNoCallback);
      });
      if (plan->hang->is_reached()) return error;
    }
    FAIL("no limit was long enough");
    return {};
  }

  // Lets go of what hangs, and waits until the thread that was left behind has ended.
  void release() {
    plan->hang->release();
    CHECK(holds_soon([this] { return threads_now() <= threads; }));
  }

  std::vector<std::string> entries() const { return entries_of(folder.path("")); }

  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes old = random_bytes(1000, 1);
  const Bytes fresh = random_bytes(2'500'000, 2);
  const int64_t threads = threads_now();
  std::shared_ptr<FaultPlan> plan;
};

TEST_CASE("whichever system call hangs, that is a timeout, and what its text says is true") {
  const LeakCheck leaks;
  HangingFile file;
  for (const bool sync : {true, false}) {
    std::vector<std::string> hung;
    for (int64_t number = 0; number < kMostCalls; ++number) {
      const std::optional<Caught> error = file.overwrite(number, sync);
      if (!error) break;
      CAPTURE(error->text);
      CHECK(error->kind == ErrorKind::write_timeout);
      CHECK(error->says(file.path + ": "));
      CHECK(error->says("range_timeout"));
      for (const char* name : {"fallocate", "ftruncate", "fsetxattr", "(fsync)", "rename",
                               "fsync of the folder", "creation"}) {
        if (error->says(name)) hung.emplace_back(name);
      }
      const bool in_place = error->says("in place");
      const bool is_unknown = error->says("is unknown");
      CHECK(in_place == error->says("fsync of the folder"));
      CHECK(is_unknown == error->says("rename"));
      CHECK(holds(file.path, in_place ? file.fresh : file.old));
      file.release();
      CHECK(holds(file.path, in_place || is_unknown ? file.fresh : file.old));
      CHECK(file.entries() == std::vector<std::string>{"data"});
      write_file(file.path, file.old);
    }
    CHECK(std::count(hung.begin(), hung.end(), "creation") == 1);
    CHECK(std::count(hung.begin(), hung.end(), "rename") == 1);
    CHECK(std::count(hung.begin(), hung.end(), "ftruncate") == 1);
    CHECK(std::count(hung.begin(), hung.end(), "fallocate") >= 1);
    CHECK(std::count(hung.begin(), hung.end(), "fsetxattr") == 1);
    CHECK(std::count(hung.begin(), hung.end(), "(fsync)") == (sync ? 1 : 0));
    CHECK(std::count(hung.begin(), hung.end(), "fsync of the folder") == (sync ? 1 : 0));
    CHECK(holds(file.path, file.fresh));  // nothing hung any more
    write_file(file.path, file.old);
  }
}

TEST_CASE("a callback that throws gets through while the sync hangs, and the rename never comes") {
  const LeakCheck leaks;
  HangingFile file;
  {
    ObjectWriter writer(file.path, 100, file.engine_with_hanging_sync());
    writer.write(Bytes(100), kNoCallback);
    const auto interrupt = [&] {
      if (file.plan->hang->is_reached()) throw Interrupted();
    };
    CHECK_THROWS_AS(writer.finish(interrupt), Interrupted);
    CHECK_FALSE(writer.is_open());
    writer.cancel();
    CHECK(caught([&] { writer.finish(kNoCallback); }).kind == ErrorKind::config);
  }
  CHECK(holds(file.path, file.old));
  CHECK(file.entries().size() == 2);
  // The temporary file is locked as long as its call may come back.
  remove_abandoned(file.folder.path(""));
  CHECK(file.entries().size() == 2);
  file.release();
  CHECK(holds(file.path, file.old));
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("a callback that throws while a step is only slow leaves nothing behind") {
  const LeakCheck leaks;
  HangingFile file;
  ObjectWriter writer(file.path, 100, file.engine_with_hanging_sync());
  const Bytes little = random_bytes(100, 3);
  writer.write(little, kNoCallback);
  const auto interrupt = [&] {
    if (!file.plan->hang->is_reached()) return;
    file.plan->hang->release();
    throw Interrupted();
  };
  CHECK_THROWS_AS(writer.finish(interrupt), Interrupted);
  const std::optional<Bytes> now = content_of(file.path);
  CHECK((now == file.old || now == little));  // it may just have gone on to the rename
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("an error comes through although the removal that follows it hangs") {
  const LeakCheck leaks;
  HangingFile file;
  const Caught of_sync = file.fail_and_hang(1, EIO);
  CHECK(of_sync.kind == ErrorKind::write);
  CHECK(of_sync.says("cannot sync: EIO"));
  file.release();
  const Caught of_rename = file.fail_and_hang(2, EACCES);
  CHECK(of_rename.kind == ErrorKind::access);
  CHECK(of_rename.says("cannot replace: EACCES"));
  CHECK(file.entries().size() == 2);
  file.release();
  CHECK(holds(file.path, file.old));
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("a writer that is refused in a rename that comes back is finished") {
  const LeakCheck leaks;
  HangingFile file;
  ObjectWriter writer(file.path, 100, file.engine_with_hanging_rename());
  const Bytes little = random_bytes(100, 3);
  writer.write(little, kNoCallback);
  const WrittenObject written = writer.finish([&] {
    if (!file.plan->hang->is_reached()) return;
    file.plan->hang->release();
    throw Error(ErrorKind::config, "refused");
  });
  CHECK(written.size_bytes == 100);
  CHECK(holds(file.path, little));
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("a writer that is refused in a rename that hangs says that it may yet happen") {
  const LeakCheck leaks;
  HangingFile file;
  const Bytes little = random_bytes(100, 3);
  {
    ObjectWriter writer(file.path, 100, file.engine_with_hanging_rename());
    writer.write(little, kNoCallback);
    const Caught error = caught([&] {
      writer.finish([&] {
        if (file.plan->hang->is_reached()) throw Error(ErrorKind::config, "refused");
      });
    });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("refused; whether the new file has taken its place is unknown"));
  }
  CHECK(holds(file.path, file.old));
  file.release();
  CHECK(holds(file.path, little));
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("a call that completes the one before it is made though nobody waits any more") {
  const LeakCheck leaks;
  const auto hang = std::make_shared<Hang>();
  const auto is_made = std::make_shared<std::atomic<bool>>(false);
  const auto refuse = [&] {
    if (!hang->is_reached()) return;
    hang->release();
    throw Error(ErrorKind::config, "refused");
  };
  TimedSteps::run("x", kLong_s, refuse, [hang, is_made](TimedSteps& steps) {
    steps.begin("the first call");
    hang->wait();
    steps.go_on("the one that completes it");
    *is_made = true;
  });
  CHECK(*is_made);
}

TEST_CASE("the look for what dead writers left says how it goes on, and can be given up") {
  const TemporaryFolder folder;
  for (int number = 0; number < 1000; ++number) {
    write_file(folder.path(std::to_string(number)), {});
  }
  int calls = 0;
  remove_abandoned(folder.path(""), [&] { ++calls; });
  CHECK(calls >= 3);
  CHECK_THROWS_AS(remove_abandoned(folder.path(""), [] { throw Interrupted(); }), Interrupted);
}

TEST_CASE("cancelling ends while the removal of the temporary file hangs") {
  const LeakCheck leaks;
  HangingFile file;
  file.plan = hanging_call(1);
  ObjectWriter writer(file.path, std::nullopt, write_engine({.faults = file.plan}));
  writer.write(Bytes(100), kNoCallback);
  writer.cancel();
  CHECK(file.plan->hang->is_reached());
  file.release();
  CHECK(holds(file.path, file.old));
  CHECK(file.entries() == std::vector<std::string>{"data"});
}

TEST_CASE("the page cache is written back in pieces before the sync, so that much is no hang") {
  const TemporaryFolder folder;
  const int64_t piece = int64_t{32} << 20;
  const auto calls_for = [&](DirectMode mode, int64_t size) {
    const Bytes contents(static_cast<size_t>(size));
    int64_t calls = 0;
    for (int64_t number = 0; number < 12; ++number) {  // create, reserve, ..., sync of the folder
      const auto plan = std::make_shared<FaultPlan>(FaultPlan{.by_call = {{number, EIO}}});
      try {
        ObjectWriter writer(folder.path("data"), size,
                            std::make_shared<WriteEngine>(
                                WriteEngine::Options{.direct = mode, .faults = plan}, nullptr));
        writer.write(contents, kNoCallback);
        writer.finish(kNoCallback);
      } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::write);
        if (std::string(error.what()).find("write it back from the page cache: EIO") !=
            std::string::npos)
          ++calls;
      }
    }
    return calls;
  };
  CHECK(calls_for(DirectMode::off, piece) == 0);
  CHECK(calls_for(DirectMode::off, piece + 1) == 2 * 2);  // each piece is begun, and waited for
  write_file(folder.path("probe"), {});
  if (direct_reads_work(folder.path("probe"))) {
    CHECK(calls_for(DirectMode::require, piece + 1) == 0);
  }
}

TEST_CASE("steps may take longer together than one of them may") {
  const LeakCheck leaks;
  int64_t begun = 0;
  const Clock::time_point start = Clock::now();
  TimedSteps::run("x", 0.5, kNoCallback, [&](TimedSteps& steps) {
    for (; Clock::now() - start < milliseconds(1000); ++begun) {
      steps.begin("a short step");
      std::this_thread::yield();
    }
  });
  CHECK(begun > 1);
}

}  // namespace s3io::testing::object_writer_hangs_test
