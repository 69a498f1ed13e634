#include "memory/shared_memory.h"

#include <linux/mman.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <limits>
#include <string>

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

// A number from a one-line file of the kernel, or `otherwise` ("max", or no such file).
int64_t read_number(const std::string& path, int64_t otherwise) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : otherwise;
}

// Faults a page in and leaves its bytes alone: part of it may belong to a slot that is in use.
void touch(std::byte* page) {
  std::atomic_ref(*reinterpret_cast<unsigned char*>(page)).fetch_or(0, std::memory_order_relaxed);
}

int64_t mem_available_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  std::string unit;
  while (meminfo >> key >> kibibytes >> unit) {
    if (key == "MemAvailable:") return kibibytes * 1024;
  }
  return std::numeric_limits<int64_t>::max();
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
      std::ifstream stat(folder + "memory.stat");
      std::string key;
      int64_t value = 0;
      while (stat >> key >> value) {
        if (key == "inactive_file") used -= value;
      }
      headroom = std::min(headroom, std::max<int64_t>(0, limit - std::max<int64_t>(0, used)));
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return headroom;
    group.resize(slash);
  }
}

}  // namespace

SharedMemory::SharedMemory(int64_t size_bytes) : size_(align_up(size_bytes, kHugePageBytes)) {
  fd_ = UniqueFd(::memfd_create("torch_s3io", MFD_CLOEXEC));
  if (!fd_.valid() || ::ftruncate(fd_.get(), size_) != 0) throw_no_memory("create", size_);
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
                        MAP_SHARED | MAP_FIXED, fd_.get(), 0);
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

SharedMemory::~SharedMemory() { ::munmap(data_, static_cast<size_t>(size_)); }

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
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string group = line.substr(second + 1);
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
