// Opening files: what is refused, what O_DIRECT really does, and noticing changes.
#include "io/direct_file.h"

#include <doctest/doctest.h>
#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include <cerrno>
#include <chrono>
#include <optional>

#include "base/align.h"
#include "forbid.h"
#include "leak_check.h"
#include "memory/aligned_buf.h"
#include "testing.h"

namespace s3io::testing::direct_file_test {

// A file whose file system refuses O_DIRECT, if there is one here.
std::optional<std::string> file_without_direct_io() {
  for (const char* path : {"/sys/kernel/mm/transparent_hugepage/enabled", "/proc/version"}) {
    const UniqueFd buffered(::open(path, O_RDONLY | O_CLOEXEC));
    const UniqueFd direct(::open(path, O_RDONLY | O_CLOEXEC | O_DIRECT));
    if (buffered.valid() && !direct.valid() && errno == EINVAL) return path;
  }
  return std::nullopt;
}

ErrorKind kind_of_opening(const std::string& path) {
  const ErrorKind inspected = caught([&] { inspect_file(path); }).kind;
  for (const DirectMode mode : {DirectMode::automatic, DirectMode::require, DirectMode::off}) {
    const Caught error = caught([&] { DirectFile(path, mode, 0); });
    CHECK(error.says(path));
    CHECK(error.kind == inspected);
  }
  return inspected;
}

TEST_CASE("what is not a regular file is refused without being opened") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  CHECK(kind_of_opening(folder.path("missing")) == ErrorKind::not_found);
  CHECK(kind_of_opening(folder.path("")) == ErrorKind::config);  // a directory
  REQUIRE(::mkfifo(folder.path("fifo").c_str(), 0600) == 0);
  CHECK(kind_of_opening(folder.path("fifo")) == ErrorKind::config);  // opening it would block
  CHECK(kind_of_opening("/dev/null") == ErrorKind::config);
  write_file(folder.path("file"), random_bytes(10, 1));
  CHECK(kind_of_opening(folder.path("file/below")) == ErrorKind::not_found);
  CHECK(kind_of_opening(std::string(5000, 'x')) == ErrorKind::config);
  CHECK(kind_of_opening("") == ErrorKind::not_found);
}

TEST_CASE("a file that may not be read is an access error") {
  const TemporaryFolder folder;
  const std::string path = folder.path("secret");
  write_file(path, random_bytes(10, 1));
  REQUIRE(::chmod(path.c_str(), 0) == 0);
  REQUIRE(::chmod(folder.path("").c_str(), 0755) == 0);
  const std::string failure = run_in_child([&] {
    constexpr uid_t kNobody = 65534;
    if (::geteuid() == 0) require_in_child(::seteuid(kNobody) == 0, "seteuid");
    for (const DirectMode mode : {DirectMode::automatic, DirectMode::require, DirectMode::off}) {
      try {
        DirectFile(path, mode, 0);
      } catch (const Error& error) {
        require_in_child(error.kind() == ErrorKind::access, error.what());
        continue;
      }
      throw std::runtime_error("the file could be opened");
    }
  });
  CHECK(failure == "");
}

TEST_CASE("each mode opens what it says, by what the kernel says") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(10'000, 1));
  for (const DirectMode mode : modes_for(path)) {
    const DirectFile file(path, mode, 0);
    CHECK(file.size() == 10'000);
    CHECK(file.can_read_buffered() == (mode != DirectMode::require));
    if (file.can_read_buffered()) CHECK((::fcntl(file.buffered_fd(), F_GETFL) & O_DIRECT) == 0);
    if (file.can_read_direct()) {
      CHECK(mode != DirectMode::off);
      CHECK((::fcntl(file.direct_fd(), F_GETFL) & O_DIRECT) != 0);
      CHECK(is_power_of_two(file.alignment()));
      CHECK(file.alignment() > 1);
    } else {
      CHECK(file.alignment() == 1);
    }
  }
}

TEST_CASE("direct reads at the reported alignment work and leave the page cache alone") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes bytes = random_bytes(200'000, 1);
  write_file(path, bytes);
  if (!direct_reads_work(path)) {
    MESSAGE("no direct reads in the temporary folder: not tested");
    return;
  }
  const DirectFile file(path, DirectMode::require, 0);
  make_cold(path);
  if (cached_pages(path) != 0) return;  // a file system in memory
  const AlignedBuf buffer = AlignedBuf::allocate(1 << 20, file.alignment());
  const int64_t offset = 3 * file.alignment();
  const int64_t length = align_down(100'000, file.alignment());
  REQUIRE(::pread(file.direct_fd(), buffer.data(), static_cast<size_t>(length), offset) == length);
  CHECK(equals(buffer.data(), Bytes(bytes.begin() + offset, bytes.begin() + offset + length)));
  CHECK(cached_pages(path) == 0);
  CHECK(read_plain(path, 0, 200'000) == bytes);
  CHECK(cached_pages(path) > 0);  // the check above can tell
}

TEST_CASE("where O_DIRECT is refused, require is an error and auto reads through the page cache") {
  const LeakCheck leaks;
  const std::optional<std::string> path = file_without_direct_io();
  if (!path) {
    MESSAGE("no file here refuses O_DIRECT: not tested");
    return;
  }
  const Caught error = caught([&] { DirectFile(*path, DirectMode::require, 0); });
  CHECK(error.kind == ErrorKind::direct_io);
  CHECK(error.says(*path));
  CHECK(error.says("direct='auto'"));
  const DirectFile file(*path, DirectMode::automatic, 4096);
  CHECK_FALSE(file.can_read_direct());
  CHECK(file.can_read_buffered());
  CHECK(file.alignment() == 1);
}

TEST_CASE("a wanted alignment raises that of the file system, never lowers it") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(10, 1));
  if (!direct_reads_work(path)) return;
  const int64_t own = DirectFile(path, DirectMode::require, 0).alignment();
  CHECK(inspect_file(path).direct_alignment == own);
  CHECK(DirectFile(path, DirectMode::require, 2).alignment() == own);
  CHECK(DirectFile(path, DirectMode::require, 65536).alignment() == 65536);
  CHECK(DirectFile(path, DirectMode::off, 65536).alignment() == 1);
}

TEST_CASE("a file that was truncated, extended, rewritten, replaced or deleted is noticed") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const auto check = [&](const std::string& what, const auto& change) {
    write_file(path, random_bytes(1000, 1));
    for (const DirectMode mode : modes_for(path)) {
      write_file(path, random_bytes(1000, 1));
      const DirectFile file(path, mode, 0);
      file.check_unchanged();
      change();
      const Caught error = caught([&] { file.check_unchanged(); });
      CHECK(error.kind == ErrorKind::file_changed);
      CHECK(error.says(path));
      CHECK(error.says(what));
    }
  };
  check("it has 10 bytes and had 1000", [&] { std::filesystem::resize_file(path, 10); });
  check("it has 1001 bytes and had 1000", [&] { std::filesystem::resize_file(path, 1001); });
  check("deleted", [&] { std::filesystem::remove(path); });
  check("replaced", [&] {
    write_file(folder.path("new"), random_bytes(1000, 2));
    std::filesystem::rename(folder.path("new"), path);
  });
  check("its time of change is", [&] {
    write_file(path, random_bytes(1000, 3));
    // Timestamps are only as fine as the kernel's clock: make the difference certain.
    std::filesystem::last_write_time(
        path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  });
}

TEST_CASE("another inode number is another file only where the file system keeps them") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(1000, 1));
  const UniqueFd local(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd other(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  const ObjectVersion identity{.device = 1, .inode = 2, .size_bytes = 3, .modified_ns = 4};
  ObjectVersion changed = identity;
  CHECK(difference(identity, changed, local.get()).empty());
  changed.device = 9;
  CHECK(difference(identity, changed, local.get()).empty());
  changed.inode = 8;
  CHECK(difference(identity, changed, other.get()).empty());
  struct statfs system {};
  REQUIRE(::fstatfs(local.get(), &system) == 0);
  const bool is_local = system.f_type == EXT4_SUPER_MAGIC || system.f_type == TMPFS_MAGIC ||
                        system.f_type == XFS_SUPER_MAGIC;
  if (is_local) {
    CHECK(difference(identity, changed, local.get()).find("another file") != std::string::npos);
  }
  ObjectVersion unknown = identity;
  unknown.inode = 0;
  CHECK(difference(unknown, changed, local.get()).empty());
}

TEST_CASE("times of change beyond what 64 bits of nanoseconds hold are told apart") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(1000, 1));
  std::vector<ObjectVersion> found;
  for (const time_t seconds : {time_t{13'600'000'000}, time_t{13'600'000'001}}) {  // in 2400
    const std::array<timespec, 2> times{{{seconds, 5}, {seconds, 5}}};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0) == 0);
    const DirectFile file(path, DirectMode::off, 0);
    found.push_back(inspect_file(path).version);
    CHECK(file.difference_from(found.back()).empty());
    struct stat status {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    if (status.st_mtim.tv_sec != seconds) return;  // this file system has no such times
  }
  const DirectFile file(path, DirectMode::off, 0);
  CHECK(file.difference_from(found[0]).find("time of change") != std::string::npos);
}

TEST_CASE("without statx the same is known of a file, but for its alignment") {
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  write_file(path, random_bytes(1000, 1));
  const FileInfo wanted = inspect_file(path);
  for (const unsigned error_number : {EPERM, EACCES, ENOSYS}) {
    const std::string failure = run_in_child([&] {
      forbid(SYS_statx, error_number);
      const FileInfo info = inspect_file(path);
      require_in_child(info.version == wanted.version, "another version");
      require_in_child(info.direct_alignment == 4096, "another alignment");
      const DirectFile file(path, DirectMode::off, 0);
      require_in_child(file.version() == wanted.version, "another version when open");
      file.check_unchanged();
      try {
        inspect_file(folder.path("missing"));
      } catch (const Error& error) {
        require_in_child(error.kind() == ErrorKind::not_found, error.what());
        return;
      }
      throw std::runtime_error("a file that is not there was found");
    });
    CHECK(failure == "");
  }
}

TEST_CASE("names of modes are what the documentation says") {
  CHECK(parse_direct_mode("auto") == DirectMode::automatic);
  CHECK(parse_direct_mode("require") == DirectMode::require);
  CHECK(parse_direct_mode("off") == DirectMode::off);
  const Caught error = caught([] { parse_direct_mode("yes"); });
  CHECK(error.kind == ErrorKind::config);
  CHECK(error.says("'yes'"));
}

}  // namespace s3io::testing::direct_file_test
