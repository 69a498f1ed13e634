#include "io/file_status.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>

#include "base/align.h"
#include "base/error.h"

namespace s3io {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr unsigned kBasicMask =
    STATX_TYPE | STATX_MODE | STATX_SIZE | STATX_INO | STATX_MTIME | STATX_NLINK;

#ifdef STATX_DIOALIGN  // Linux 6.1
constexpr unsigned kMask = kBasicMask | STATX_DIOALIGN;

void set_alignment(const struct statx& fields, FileStatus& status) {
  if ((fields.stx_mask & STATX_DIOALIGN) == 0) return;
  status.memory_alignment = fields.stx_dio_mem_align;
  status.direct_alignment = fields.stx_dio_mem_align == 0
                                ? 0
                                : std::max(fields.stx_dio_mem_align, fields.stx_dio_offset_align);
}
#else
constexpr unsigned kMask = kBasicMask;

void set_alignment(const struct statx&, FileStatus&) {}
#endif

// Of the year 2400, which is no error: the number wraps around, and differs with every change.
int64_t since_1970(int64_t seconds, int64_t fraction) {
  return static_cast<int64_t>(static_cast<uint64_t>(seconds) * uint64_t{kSecond} +
                              static_cast<uint64_t>(fraction));
}

FileStatus with_default_alignment() {
  FileStatus status;
  status.direct_alignment = status.memory_alignment = kPageBytes;
  return status;
}

FileStatus from(const struct statx& fields) {
  FileStatus status = with_default_alignment();
  status.mode = fields.stx_mode;
  status.links = fields.stx_nlink;
  status.device = (uint64_t{fields.stx_dev_major} << 32) | fields.stx_dev_minor;
  status.inode = fields.stx_ino;
  status.size_bytes = static_cast<int64_t>(fields.stx_size);
  status.modified_ns = since_1970(fields.stx_mtime.tv_sec, fields.stx_mtime.tv_nsec);
  set_alignment(fields, status);
  return status;
}

FileStatus from(const struct stat& fields) {
  FileStatus status = with_default_alignment();
  status.mode = fields.st_mode;
  status.links = static_cast<uint32_t>(fields.st_nlink);
  status.device = (uint64_t{major(fields.st_dev)} << 32) | minor(fields.st_dev);
  status.inode = fields.st_ino;
  status.size_bytes = fields.st_size;
  status.modified_ns = since_1970(fields.st_mtim.tv_sec, fields.st_mtim.tv_nsec);
  return status;
}

FileStatus failed(int error_number) {
  FileStatus status;
  status.error_number = error_number;
  return status;
}

}  // namespace

FileStatus status_of_path(const std::string& path) {
  return status_in_folder(AT_FDCWD, path.c_str());
}

FileStatus status_in_folder(int folder_fd, const char* name) {
  struct statx fields {};
  if (::statx(folder_fd, name, 0, kMask, &fields) == 0) return from(fields);
  if (!may_be_filtered(errno)) return failed(errno);
  struct stat plain {};
  return ::fstatat(folder_fd, name, &plain, 0) == 0 ? from(plain) : failed(errno);
}

FileStatus status_of_open(int fd) {
  struct statx fields {};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, kMask, &fields) == 0) {
    return from(fields);
  }
  // EINVAL: where the kernel has no statx, the C library makes one up, which does not know how to
  // leave a server alone.
  if (!may_be_filtered(errno) && errno != EINVAL) return failed(errno);
  struct stat plain {};
  return ::fstat(fd, &plain) == 0 ? from(plain) : failed(errno);
}

}  // namespace s3io
