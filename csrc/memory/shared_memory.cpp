#include "memory/shared_memory.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "base/align.h"
#include "base/error.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace s3io {
namespace {

constexpr int kCollapseAttempts = 4;

[[noreturn]] void throw_no_memory(const char* what, int64_t size_bytes) {
  throw Error(ErrorKind::out_of_memory,
              message("cannot ", what, " ", size_bytes, " bytes of buffer memory: ",
                      errno_text(errno), "; lower BufferPoolConfig.capacity or buffer_size"));
}

// Memory beyond the end of a file can be mapped, and ends the process when it is touched.
void check_size(int fd, int64_t wanted_bytes) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_no_memory("look at", wanted_bytes);
  if (status.st_size < wanted_bytes) {
    throw Error(ErrorKind::data,
                message("shared memory of ", status.st_size, " bytes, where ", wanted_bytes,
                        " are needed: another program's, or one of "
                        "another version of torch_s3io"));
  }
}

// A file of the kernel; empty if there is none.
std::string read_text(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char part[4096];
  ssize_t count = 0;
  while (fd.valid() && (count = ::read(fd.get(), part, sizeof(part))) > 0) {
    text.append(part, static_cast<size_t>(count));
  }
  return text;
}

// The next line of `text`, which loses it; false at the end.
bool take_line(std::string_view& text, std::string_view& line) {
  if (text.empty()) return false;
  const size_t end = text.find('\n');
  line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return true;
}

// The number that follows `key` at the start of a line of `text`, or `otherwise`.
int64_t number_after(std::string_view text, std::string_view key, int64_t otherwise) {
  std::string_view line;
  while (take_line(text, line)) {
    if (!line.starts_with(key)) continue;
    const std::string rest(line.substr(key.size()));
    char* end = nullptr;
    const int64_t value = std::strtoll(rest.c_str(), &end, 10);
    if (end != rest.c_str()) return value;
  }
  return otherwise;
}

// A number from a one-line file of the kernel, or `otherwise` ("max", or no such file).
int64_t read_number(const std::string& path, int64_t otherwise) {
  return number_after(read_text(path), "", otherwise);
}

// Faults a page in and leaves its bytes alone: part of it may belong to a slot that is in use.
void touch(std::byte* page) {
  std::atomic_ref(*reinterpret_cast<unsigned char*>(page)).fetch_or(0, std::memory_order_relaxed);
}

int64_t mem_available_bytes() {
  const int64_t kibibytes = number_after(read_text("/proc/meminfo"), "MemAvailable:", -1);
  return kibibytes < 0 ? std::numeric_limits<int64_t>::max() : kibibytes * 1024;
}

// Headroom under the memory limits of `group` and all groups above it. Page cache is reclaimable,
// so the group's inactive file pages count as free.
int64_t cgroup_headroom(const std::string& root, std::string group, const char* limit_name,
                        const char* usage_name) {
  constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
  int64_t headroom = kUnlimited;
  while (true) {
    const std::string folder = root + group + "/";
    const int64_t limit = read_number(folder + limit_name, kUnlimited);
    if (limit < kUnlimited / 2) {
      int64_t used = read_number(folder + usage_name, 0);
      used -= number_after(read_text(folder + "memory.stat"), "inactive_file ", 0);
      headroom = std::min(headroom, std::max<int64_t>(0, limit - std::max<int64_t>(0, used)));
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return headroom;
    group.resize(slash);
  }
}

}  // namespace

UniqueFd make_memory_file(int64_t size_bytes) {
  const int64_t rounded = align_up(size_bytes, kHugePageBytes);
  UniqueFd fd(::memfd_create("torch_s3io", MFD_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), rounded) != 0) throw_no_memory("create", rounded);
  return fd;
}

SharedMapping::SharedMapping(int fd, int64_t offset, int64_t size_bytes)
    : size_(align_up(size_bytes, kHugePageBytes)) {
  check_size(fd, offset + size_);
  // Reserve one huge page more than needed, then place the mapping at the boundary inside.
  const auto reserved_bytes = static_cast<size_t>(size_ + kHugePageBytes);
  void* reserved = ::mmap(nullptr, reserved_bytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throw_no_memory("reserve", size_);
  auto* begin = static_cast<std::byte*>(reserved);
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const auto head = static_cast<size_t>(-address & static_cast<uintptr_t>(kHugePageBytes - 1));
  std::byte* aligned = begin + head;
  void* mapped = ::mmap(aligned, static_cast<size_t>(size_), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED, fd, offset);
  if (mapped == MAP_FAILED) {
    const int error_number = errno;
    ::munmap(reserved, reserved_bytes);
    errno = error_number;
    throw_no_memory("map", size_);
  }
  if (head > 0) ::munmap(begin, head);
  const size_t tail = static_cast<size_t>(kHugePageBytes) - head;
  if (tail > 0) ::munmap(aligned + size_, tail);
  data_ = aligned;
}

SharedMapping::~SharedMapping() { ::munmap(data_, static_cast<size_t>(size_)); }

bool prepare_huge_page(std::byte* huge_page) {
  constexpr auto kLength = static_cast<size_t>(kHugePageBytes);
  touch(huge_page);  // collapsing needs one page present
  for (int attempt = 0; attempt < kCollapseAttempts; ++attempt) {
    if (::madvise(huge_page, kLength, MADV_COLLAPSE) == 0) return true;
    if (errno != EAGAIN) break;
  }
  if (::madvise(huge_page, kLength, MADV_POPULATE_WRITE) == 0) return false;
  if (errno == ENOMEM || errno == EFAULT) throw_no_memory("populate", kHugePageBytes);
  // Kernels before 5.14 cannot populate by advice: touch every page.
  for (int64_t offset = 0; offset < kHugePageBytes; offset += kPageBytes) {
    touch(huge_page + offset);
  }
  return false;
}

int64_t available_memory_bytes() {
  int64_t available = mem_available_bytes();
  const std::string groups = read_text("/proc/self/cgroup");
  std::string_view rest = groups;
  std::string_view line;
  while (take_line(rest, line)) {  // "number:controllers:/group"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    std::string group(line.substr(second + 1));
    if (group == "/") group.clear();
    if (controllers.empty()) {
      available = std::min(
          available, cgroup_headroom("/sys/fs/cgroup", group, "memory.max", "memory.current"));
    } else if (controllers == "memory") {
      available =
          std::min(available, cgroup_headroom("/sys/fs/cgroup/memory", group,
                                              "memory.limit_in_bytes", "memory.usage_in_bytes"));
    }
  }
  return available;
}

}  // namespace s3io
