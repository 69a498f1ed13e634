// What all tests share: files in a temporary folder, plain reads to compare with, errors as values,
// and forked children.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"
#include "io/direct_file.h"
#include "io/io_engine.h"

namespace s3io::testing {

using Bytes = std::vector<std::byte>;

// How often a test tries something at random. Sanitizers look for races and for wrong accesses, and
// a few rounds show as many as all of them. That all bring the right bytes is what cpptest says.
#ifdef S3IO_FEW_ROUNDS
constexpr int rounds(int count) { return std::max(1, count / 5); }
#else
constexpr int rounds(int count) { return count; }
#endif

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "torch_s3io_test_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }

  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// By splitmix64 (Steele, Lea, Flood 2014), which is quick where nothing is optimized.
inline Bytes random_bytes(int64_t count, uint64_t seed) {
  Bytes bytes(static_cast<size_t>(count));
  std::vector<uint64_t> words((bytes.size() + sizeof(uint64_t) - 1) / sizeof(uint64_t));
  for (uint64_t& word : words) {
    seed += 0x9e3779b97f4a7c15;
    word = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    word ^= word >> 31;
  }
  if (count > 0) std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

inline void write_file(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  REQUIRE(file.good());
}

inline Bytes read_plain(const std::string& path, int64_t offset, int64_t length) {
  std::ifstream file(path, std::ios::binary);
  Bytes bytes(static_cast<size_t>(length));
  file.seekg(offset);
  file.read(reinterpret_cast<char*>(bytes.data()), length);
  REQUIRE(file.gcount() == length);
  return bytes;
}

inline bool equals(const std::byte* data, const Bytes& expected) {
  return expected.empty() || std::memcmp(data, expected.data(), expected.size()) == 0;
}

// How many pages of the file are in the page cache, as the kernel says.
inline int64_t cached_pages(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto size = static_cast<size_t>(std::filesystem::file_size(path));
  if (size == 0) return 0;
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  REQUIRE(mapping != MAP_FAILED);
  std::vector<unsigned char> pages((size + 4095) / 4096);
  REQUIRE(::mincore(mapping, size, pages.data()) == 0);
  ::munmap(mapping, size);
  int64_t cached = 0;
  for (const unsigned char page : pages) cached += page & 1;
  return cached;
}

// Whether files in the temporary folder can be read directly; a tmpfs, for instance, may refuse.
inline bool direct_reads_work(const std::string& path) {
  return DirectFile(path, DirectMode::automatic, 0).can_read_direct();
}

// Writes the file out and drops it from the page cache. The kernel may keep pages that it is busy
// with: asked again, it lets go of them. In a file system in memory they stay.
inline void make_cold(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(file.valid());
  for (int attempt = 0; attempt < 20; ++attempt) {
    REQUIRE(::fsync(file.get()) == 0);
    REQUIRE(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
    if (cached_pages(path) == 0) return;
  }
}

struct Caught {
  ErrorKind kind;
  std::string text;
  bool says(const std::string& part) const { return text.find(part) != std::string::npos; }
};

// The Error that `call` throws; fails the test when it throws none.
template <typename Call>
Caught caught(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  FAIL("no Error was thrown");
  return {};
}

inline bool has_uring() { return uring_unavailable_reason().empty(); }

inline std::vector<EngineKind> engines_here() {
  if (has_uring()) return {EngineKind::uring, EngineKind::threads};
  MESSAGE("io_uring is not to be had here: only the thread engine is tested");
  return {EngineKind::threads};
}

inline const char* name_of(EngineKind kind) {
  return kind == EngineKind::uring ? "uring" : kind == EngineKind::threads ? "threads" : "auto";
}

inline const char* name_of(DirectMode mode) {
  return mode == DirectMode::require ? "require" : mode == DirectMode::off ? "off" : "auto";
}

// The modes that files in the temporary folder allow.
inline std::vector<DirectMode> modes_for(const std::string& path) {
  std::vector<DirectMode> modes{DirectMode::automatic, DirectMode::off};
  if (direct_reads_work(path)) modes.push_back(DirectMode::require);
  return modes;
}

// For children, where doctest's own assertions would be lost.
inline void require_in_child(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

// Runs `body` in a forked child, which then ends without running any destructor of its parent's.
// Returns what went wrong there: nothing, the text of an exception, or how the child died. A child
// that takes longer than a minute is killed.
inline std::string run_in_child(const std::function<void()>& body) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  std::cout.flush();  // else the child may print what is buffered once more
  std::fflush(stdout);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::string failure;
    try {
      body();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    const ssize_t written = ::write(writing.get(), failure.data(), failure.size());
    ::_exit(written == static_cast<ssize_t>(failure.size()) ? 0 : 1);
  }
  writing = UniqueFd();
  std::string failure;
  pollfd poll_entry{.fd = reading.get(), .events = POLLIN, .revents = 0};
  while (::poll(&poll_entry, 1, 60'000) > 0) {
    std::array<char, 4096> part{};
    const ssize_t count = ::read(reading.get(), part.data(), part.size());
    if (count <= 0) break;
    failure.append(part.data(), static_cast<size_t>(count));
  }
  if (poll_entry.revents == 0) {
    ::kill(child, SIGKILL);
    failure += " the child hung";
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFSIGNALED(status)) failure += " killed by signal " + std::to_string(WTERMSIG(status));
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
    failure += " exit status " + std::to_string(WEXITSTATUS(status));
  }
  return failure;
}

}  // namespace s3io::testing
