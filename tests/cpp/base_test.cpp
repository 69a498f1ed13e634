// Rounding, byte ranges, errno to errors.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cerrno>
#include <limits>
#include <random>

#include "base/align.h"
#include "base/byte_range.h"
#include "base/clock.h"
#include "base/error.h"
#include "testing.h"

namespace s3io::testing::base_test {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST_CASE("align_down and align_up give the nearest multiples") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 1000; ++round) {
    const int64_t alignment = int64_t{1} << (random() % 22);
    const auto value = static_cast<int64_t>(random() >> 20);
    CHECK(align_down(value, alignment) == value / alignment * alignment);
    CHECK(align_up(value, alignment) == (value + alignment - 1) / alignment * alignment);
  }
}

TEST_CASE("only powers of two are powers of two") {
  for (int64_t value = -5; value <= 70; ++value) {
    const bool expected = value == 1 || value == 2 || value == 4 || value == 8 || value == 16 ||
                          value == 32 || value == 64;
    CHECK(is_power_of_two(value) == expected);
  }
}

TEST_CASE("a byte range is refused when negative or overflowing, and the error names the path") {
  CHECK(ByteRange::checked(0, 0, "p").end() == 0);
  CHECK(ByteRange::checked(kMax - 5, 5, "p").end() == kMax);
  struct Range {
    int64_t offset, length;
  };
  for (const Range bad :
       {Range{-1, 1}, {1, -1}, {kMax, 1}, {1, kMax}, {kMax, kMax}, {-kMax - 1, 0}}) {
    const Caught error = caught([&] { ByteRange::checked(bad.offset, bad.length, "some/file"); });
    CHECK(error.kind == ErrorKind::range);
    CHECK(error.says("some/file"));
    CHECK(error.says(std::to_string(bad.offset)));
  }
}

TEST_CASE("errno becomes a kind and a text with its name") {
  CHECK(kind_of_errno(ENOENT) == ErrorKind::not_found);
  CHECK(kind_of_errno(EACCES) == ErrorKind::access);
  CHECK(kind_of_errno(EISDIR) == ErrorKind::config);
  CHECK(kind_of_errno(EMFILE) == ErrorKind::out_of_memory);
  CHECK(kind_of_errno(ESTALE) == ErrorKind::file_changed);
  CHECK(kind_of_errno(EIO) == ErrorKind::read);
  CHECK(errno_text(EIO) == "EIO (Input/output error)");
  CHECK(errno_text(99999).find("99999") != std::string::npos);
  const Error error = error_from_errno(EMFILE, "open", "some/file");
  CHECK(std::string(error.what()).find("some/file: cannot open: EMFILE") == 0);
  CHECK(std::string(error.what()).find("ulimit -n") != std::string::npos);
}

TEST_CASE("a deadline never overflows, whatever the number of seconds") {
  for (const double seconds : {-1.0, 0.0, 1e300, std::numeric_limits<double>::infinity(),
                               std::numeric_limits<double>::quiet_NaN()}) {
    const Clock::time_point before = Clock::now();
    const Clock::time_point deadline = deadline_after(seconds);
    CHECK(deadline >= before);
    CHECK(deadline <= Clock::now() + std::chrono::hours(24 * 366));
  }
}

TEST_CASE(
    "a file that is too long names the limit that it met: the process's, or the file system") {
  const std::string failure = run_in_child([&] {
    rlimit limit{};
    require_in_child(::getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
    const std::string text = write_error_from_errno(EFBIG, "write", "p").what();
    const bool is_unlimited = limit.rlim_cur == RLIM_INFINITY;
    require_in_child(is_unlimited == (text.find("ulimit") == std::string::npos), text);
    require_in_child(is_unlimited == (text.find("file system") != std::string::npos), text);
    limit.rlim_cur = 4096;
    require_in_child(::setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    const std::string limited = write_error_from_errno(EFBIG, "write", "p").what();
    require_in_child(limited.find("now 4 KiB (ulimit -f") != std::string::npos, limited);
  });
  CHECK(failure == "");
}

TEST_CASE("the text of an error is one line, whatever the names in it") {
  std::string name = "/data/\xc3\xa4 b\\";
  for (char one = 1; one < ' '; ++one) name += one;
  name += "\x7f";
  const auto is_control = [](char one) { return (one >= 0 && one < ' ') || one == 0x7f; };
  for (const Error& error :
       {Error(ErrorKind::config, message(name, ": cannot be")), error_from_errno(EIO, "read", name),
        write_error_from_errno(EIO, "write", name)}) {
    const std::string text = error.what();
    CHECK(std::ranges::none_of(text, is_control));
    CHECK(text.starts_with("/data/\xc3\xa4 b\\\\x01\\x02"));
    CHECK(text.find("\\x08\\t\\n\\x0b\\x0c\\r\\x0e") != std::string::npos);
    CHECK(text.find("\\x1b\\x1c\\x1d\\x1e\\x1f\\x7f: cannot ") != std::string::npos);
    CHECK(std::string(Error(ErrorKind::data, text).what()) == text);  // of an error within another
  }
}

}  // namespace s3io::testing::base_test
