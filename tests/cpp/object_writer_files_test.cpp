// What becomes of the files and links that a written one takes the place of, and of dead writers'.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include "store/file_store.h"
#include "writing.h"

namespace s3io::testing::object_writer_files_test {

constexpr int64_t kMiB = int64_t{1} << 20;

TEST_CASE("the old file stays until the new one is whole, and has an ordinary mode then") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes old = random_bytes(100, 1);
  write_file(path, old);
  const auto engine = write_engine({});
  const Bytes fresh = random_bytes(2 * kMiB, 2);
  {
    ObjectWriter writer(path, std::nullopt, engine);
    writer.write(fresh, kNoCallback);
    CHECK(holds(path, old));
    CHECK(entries_of(folder.path("")).size() == 2);
  }  // goes without `finish`
  CHECK(holds(path, old));
  ObjectWriter cancelled(path, std::nullopt, engine);
  cancelled.write(fresh, kNoCallback);
  cancelled.cancel();
  cancelled.cancel();
  CHECK(caught([&] { cancelled.write(fresh, kNoCallback); }).says("cancelled"));
  CHECK(entries_of(folder.path("")) == std::vector<std::string>{"data"});

  ObjectWriter writer(path, std::nullopt, engine);
  writer.write(fresh, kNoCallback);
  writer.finish(kNoCallback);
  CHECK(holds(path, fresh));
  CHECK(caught([&] { writer.finish(kNoCallback); }).says("finished"));
  CHECK(entries_of(folder.path("")) == std::vector<std::string>{"data"});
  const mode_t mask = ::umask(022);
  ::umask(mask);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("a file that is replaced leaves its permissions to the new one") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes fresh = random_bytes(100, 2);
  const auto mode_of = [](const std::string& of) {
    struct stat status {};
    REQUIRE(::stat(of.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  for (const mode_t mode : {0600U, 0640U, 0400U, 0666U, 0777U, 0U, 04755U}) {
    CAPTURE(mode);
    write_file(path, random_bytes(100, 1));
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    ObjectWriter writer(path, std::nullopt, write_engine({}));
    writer.write(fresh, kNoCallback);
    for (const std::string& name : entries_of(folder.path(""))) {
      // Nobody may read along who may not read the old file.
      CHECK((mode_of(folder.path(name)) & 0777 & ~(mode | S_IWUSR)) == 0);
    }
    writer.finish(kNoCallback);
    CHECK(mode_of(path) == (mode & 0777));  // a program of other content has no special rights
    CHECK(holds(path, fresh));
    std::filesystem::remove(path);
  }
}

TEST_CASE("through links the file behind them is written, and the links stay") {
  namespace fs = std::filesystem;
  const TemporaryFolder folder;
  fs::create_directories(folder.path("a/b"));
  const std::string link = folder.path("link");
  fs::create_symlink("a/second", link);
  fs::create_symlink("b/data", folder.path("a/second"));
  const std::string target = folder.path("a/b/data");
  const auto engine = write_engine({});
  for (const uint64_t version : {1U, 2U}) {  // the file is new, and replaced
    const Bytes contents = random_bytes(1000, version);
    ObjectWriter writer(link, std::nullopt, engine);
    writer.write(contents, kNoCallback);
    CHECK(entries_of(folder.path("a/b")).size() == version);  // beside the target
    writer.finish(kNoCallback);
    CHECK(fs::is_symlink(link));
    CHECK(fs::is_symlink(folder.path("a/second")));
    CHECK(holds(target, contents));
    CHECK(entries_of(folder.path("a/b")) == std::vector<std::string>{"data"});
  }
  fs::remove(link);
  fs::create_symlink(target, link);  // by its whole path
  ObjectWriter(link, std::nullopt, engine).finish(kNoCallback);
  CHECK(holds(target, Bytes()));
  fs::remove(link);
  fs::create_symlink("link", link);
  const Caught loop = caught([&] { ObjectWriter(link, std::nullopt, engine); });
  CHECK(loop.kind == ErrorKind::config);
  CHECK(loop.says(link));
}

TEST_CASE("where links are to be replaced the file takes the place of the link") {
  namespace fs = std::filesystem;
  const TemporaryFolder folder;
  const auto engine = write_engine({});
  const Bytes old = random_bytes(100, 1);
  fs::create_directories(folder.path("blobs"));
  for (const char* target : {"blobs/old", "blobs/gone", "link"}) {  // one there, one not, itself
    write_file(folder.path("blobs/old"), old);
    ::chmod(folder.path("blobs/old").c_str(), 0400);
    fs::create_symlink(target, folder.path("link"));
    ObjectWriter writer(folder.path("link"), std::nullopt, engine, {}, Links::replace);
    const Bytes fresh = random_bytes(100, 2);
    writer.write(fresh, kNoCallback);
    CHECK(fs::is_symlink(folder.path("link")));  // until it is finished
    writer.finish(kNoCallback);
    CHECK_FALSE(fs::is_symlink(folder.path("link")));
    CHECK(holds(folder.path("link"), fresh));
    const fs::perms rights = fs::status(folder.path("link")).permissions();
    CHECK((rights & fs::perms::owner_write) != fs::perms::none);  // those of a new file
    CHECK(holds(folder.path("blobs/old"), old));
    CHECK(entries_of(folder.path("blobs")) == std::vector<std::string>{"old"});
    fs::remove(folder.path("link"));
    fs::remove(folder.path("blobs/old"));
  }
}

TEST_CASE("the checksum is kept in an attribute of the file, unless that was not wanted") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes digits = {std::byte{'1'}, std::byte{'2'}, std::byte{'3'}};
  ObjectWriter writer(path, std::nullopt, write_engine({}));
  writer.write(digits, kNoCallback);
  const WrittenObject written = writer.finish(kNoCallback);
  if (written.checksum_kept) CHECK(checksum_attribute(path) == "107b2fb2 3");
  ObjectWriter without(path, std::nullopt, write_engine({.checksums = false}));
  without.write(digits, kNoCallback);
  const WrittenObject plain = without.finish(kNoCallback);
  CHECK_FALSE(plain.crc32c.has_value());
  CHECK_FALSE(plain.checksum_kept);
  CHECK(checksum_attribute(path).empty());
}

TEST_CASE("what a dead writer left is removed at the next start, a live one's is spared") {
  const TemporaryFolder folder;
  const auto left = [&] { return entries_of(folder.path("")).size(); };
  const std::string died = run_in_child([&] {
    ObjectWriter writer(folder.path("dead"), std::nullopt, write_engine({}));
    writer.write(random_bytes(3 * kMiB, 1), kNoCallback);
    ::kill(::getpid(), SIGKILL);
  });
  CHECK(died.find("signal 9") != std::string::npos);
  CHECK(left() == 1);
  // Where its writes are still on their way to the device, the kernel holds the lock until then.
  CHECK(holds_soon([&] {
    ObjectWriter(folder.path("next"), std::nullopt, write_engine({}));
    return left() == 0;
  }));
  ObjectWriter live(folder.path("live"), std::nullopt, write_engine({}));
  live.write(random_bytes(100, 1), kNoCallback);
  write_file(folder.path("s3io-tmp-mine"), {});  // somebody else's file
  ObjectWriter other(folder.path("other"), std::nullopt, write_engine({}));
  CHECK(left() == 3);
  other.finish(kNoCallback);
  live.finish(kNoCallback);
  CHECK(holds(folder.path("live"), random_bytes(100, 1)));
}

TEST_CASE("a forked child leaves its parent's writer alone") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const Bytes contents = random_bytes(3 * kMiB, 1);
  for (const EngineKind kind : engines_here()) {
    auto engine = write_engine({.engine = kind});
    auto writer = std::make_unique<ObjectWriter>(folder.path("data"), std::nullopt, engine);
    writer->write(contents, kNoCallback);
    CHECK(run_in_child([&] {
            const Caught error = caught([&] { writer->write(contents, kNoCallback); });
            require_in_child(error.says("parent"), error.text);
            writer->cancel();
            writer.reset();
          }) == "");
    writer->finish(kNoCallback);
    CHECK(holds(folder.path("data"), contents));
  }
}

}  // namespace s3io::testing::object_writer_files_test
