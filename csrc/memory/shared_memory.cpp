#include "memory/shared_memory.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <utility>

#include "base/align.h"
#include "base/error.h"
#include "base/limits.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace s3io {
namespace {

constexpr int kCollapseAttempts = 4;

[[noreturn]] void throw_no_memory(const char* what, int64_t size_bytes, int error_number) {
  std::string hint = limit_hint(error_number);
  if (error_number == ENOSPC) hint = "; make /dev/shm larger (docker run --shm-size=8g)";
  append(hint, "; lower BufferPoolConfig.capacity or buffer_size");
  const ErrorKind kind = kind_of_errno(error_number);
  throw Error(kind == ErrorKind::read ? ErrorKind::out_of_memory : kind,
              message("cannot ", what, " ", size_bytes,
                      " bytes of shared memory: ", errno_text(error_number), hint));
}

// Memory beyond the end of a file can be mapped, and ends the process when it is touched.
void check_size(int fd, int64_t wanted_bytes) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_no_memory("look at", wanted_bytes, errno);
  if (status.st_size < wanted_bytes) {
    throw Error(ErrorKind::data,
                message("shared memory of ", status.st_size, " bytes, where ", wanted_bytes,
                        " are needed: another program's, or one of "
                        "another version of torch_s3io"));
  }
}

// Faults a page in and leaves its bytes alone: part of it may belong to a slot that is in use.
void touch(std::byte* page) {
  std::atomic_ref(*reinterpret_cast<unsigned char*>(page)).fetch_or(0, std::memory_order_relaxed);
}

UniqueFd open_memory_file() {
  UniqueFd fd(::memfd_create("torch_s3io", MFD_CLOEXEC));
  if (fd.valid() || !may_be_filtered(errno)) return fd;
  const int error_number = errno;
  fd = UniqueFd(::open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  const int other = errno;
  throw Error(
      ErrorKind::access,
      message("cannot make shared memory: memfd_create failed with ", errno_text(error_number),
              ", and opening a file in /dev/shm with ", errno_text(other), limit_hint(other),
              filter_hint(error_number, "memfd_create"), ", or mount a tmpfs at /dev/shm"));
}

// A memfd lies in a file system of its own, which has no size.
bool may_run_full(int fd) {
  struct statfs system {};
  return ::fstatfs(fd, &system) == 0 && system.f_blocks > 0;
}

}  // namespace

UniqueFd make_memory_file(int64_t size_bytes) {
  const int64_t rounded = align_up(size_bytes, kPageBytes);
  UniqueFd fd = open_memory_file();
  if (!fd.valid() || ::ftruncate(fd.get(), rounded) != 0) throw_no_memory("make", rounded, errno);
  return fd;
}

SharedMapping::SharedMapping(int fd, int64_t offset, int64_t size_bytes, int64_t reserved_bytes)
    : size_(align_up(size_bytes, kHugePageBytes)), offset_(offset) {
  check_size(fd, offset + align_up(size_bytes, kPageBytes));
  if (may_run_full(fd)) {
    limited_ = UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!limited_.valid()) throw_no_memory("map", size_, errno);
    reserve(0, reserved_bytes);
  }
  map(fd, offset, MAP_SHARED | MAP_FIXED);
}

SharedMapping::SharedMapping(int64_t size_bytes) : size_(align_up(size_bytes, kHugePageBytes)) {
  map(-1, 0, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
}

void SharedMapping::map(int fd, int64_t offset, int flags) {
  // Reserve one huge page more than needed, then place the mapping at the boundary inside.
  const auto reserved_bytes = static_cast<size_t>(size_ + kHugePageBytes);
  void* reserved = ::mmap(nullptr, reserved_bytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throw_no_memory("map", size_, errno);
  auto* begin = static_cast<std::byte*>(reserved);
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const auto head = static_cast<size_t>(-address & static_cast<uintptr_t>(kHugePageBytes - 1));
  std::byte* aligned = begin + head;
  void* mapped =
      ::mmap(aligned, static_cast<size_t>(size_), PROT_READ | PROT_WRITE, flags, fd, offset);
  if (mapped == MAP_FAILED) {
    const int error_number = errno;
    ::munmap(reserved, reserved_bytes);
    throw_no_memory("map", size_, error_number);
  }
  if (head > 0) ::munmap(begin, head);
  const size_t tail = static_cast<size_t>(kHugePageBytes) - head;
  if (tail > 0) ::munmap(aligned + size_, tail);
  data_ = aligned;
}

SharedMapping::SharedMapping(SharedMapping&& other) noexcept
    : size_(other.size_),
      data_(std::exchange(other.data_, nullptr)),
      limited_(std::move(other.limited_)),
      offset_(other.offset_) {}

SharedMapping::~SharedMapping() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(size_));
}

void SharedMapping::reserve(int64_t offset, int64_t length) {
  if (!limited_.valid() || length == 0) return;
  int result = -1;
  do {
    result = ::fallocate(limited_.get(), 0, offset_ + offset, length);
  } while (result != 0 && errno == EINTR);
  if (result != 0) throw_no_memory("reserve", length, errno);
}

bool SharedMapping::prepare_huge_page(int64_t offset) {
  constexpr auto kLength = static_cast<size_t>(kHugePageBytes);
  std::byte* huge_page = data_ + offset;
  reserve(offset, kHugePageBytes);
  touch(huge_page);  // collapsing needs one page present
  for (int attempt = 0; attempt < kCollapseAttempts; ++attempt) {
    if (::madvise(huge_page, kLength, MADV_COLLAPSE) == 0) return true;
    if (errno != EAGAIN) break;
  }
  if (::madvise(huge_page, kLength, MADV_POPULATE_WRITE) == 0) return false;
  if (errno == ENOMEM || errno == EFAULT) throw_no_memory("populate", kHugePageBytes, errno);
  // Kernels before 5.14 cannot populate by advice: touch every page.
  for (int64_t page = 0; page < kHugePageBytes; page += kPageBytes) touch(huge_page + page);
  return false;
}

}  // namespace s3io
