// The one check for "nothing leaked": file descriptors, threads, and mappings of buffers and rings
// are after a test what they were before it.
#pragma once

#include <dirent.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define S3IO_HAS_LEAK_SANITIZER
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define S3IO_HAS_LEAK_SANITIZER
#endif
#ifdef S3IO_HAS_LEAK_SANITIZER
#include <sanitizer/lsan_interface.h>
#endif

namespace s3io::testing {

inline std::vector<std::string> entries_of(const std::string& folder) {
  std::vector<std::string> names;
  DIR* stream = ::opendir(folder.c_str());
  REQUIRE(stream != nullptr);
  const std::string own = std::to_string(::dirfd(stream));
  while (const dirent* entry = ::readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != ".." && name != own) names.push_back(name);
  }
  ::closedir(stream);
  return names;
}

struct Resources {
  std::vector<std::string> files;     // number and target of every open descriptor
  int64_t threads = 0;                // workers of the kernel's own are not ours to end
  std::vector<std::string> mappings;  // of memfds and rings

  bool operator==(const Resources&) const = default;

  static Resources now() {
    Resources resources;
    for (const std::string& number : entries_of("/proc/self/fd")) {
      std::array<char, 4096> target{};
      const std::string link = "/proc/self/fd/" + number;
      if (::readlink(link.c_str(), target.data(), target.size() - 1) < 0) continue;
      resources.files.push_back(number + " " + target.data());
    }
    for (const std::string& number : entries_of("/proc/self/task")) {
      std::string name;
      std::getline(std::ifstream("/proc/self/task/" + number + "/comm") >> std::ws, name);
      if (name.rfind("iou-", 0) != 0 && !name.empty()) ++resources.threads;
    }
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      const bool ours =
          line.find("memfd:") != std::string::npos || line.find("io_uring") != std::string::npos;
      if (ours) resources.mappings.push_back(line);
    }
    std::sort(resources.files.begin(), resources.files.end());
    return resources;
  }
};

// Looks again until `condition` holds, for at most ten seconds. A thread that was joined stays
// visible for a moment; everything else is there at once.
template <typename Condition>
bool holds_soon(Condition condition) {
  const Clock::time_point deadline = Clock::now() + milliseconds(10'000);
  while (!condition()) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Declare it first in a test: it checks when everything after it is gone.
class LeakCheck {
 public:
  LeakCheck() {
    std::thread([] {}).join();  // a sanitizer makes threads of its own with the first one
    before_ = Resources::now();
  }
  LeakCheck(const LeakCheck&) = delete;
  LeakCheck& operator=(const LeakCheck&) = delete;
  ~LeakCheck() {
    CHECK(holds_soon([this] { return Resources::now().threads <= before_.threads; }));
    const Resources after = Resources::now();
    CHECK(after.files == before_.files);
    CHECK(after.mappings == before_.mappings);
  }

 private:
  Resources before_;
};

// What this thread allocates meanwhile may be left behind: memory that reads may yet write to.
struct LeftBehind {
#ifdef S3IO_HAS_LEAK_SANITIZER
  LeftBehind() { __lsan_disable(); }
  ~LeftBehind() { __lsan_enable(); }
#else
  LeftBehind() = default;
  ~LeftBehind() = default;
#endif
  LeftBehind(const LeftBehind&) = delete;
  LeftBehind& operator=(const LeftBehind&) = delete;
};

}  // namespace s3io::testing
