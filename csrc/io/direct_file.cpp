#include "io/direct_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/align.h"
#include "base/error.h"

namespace s3io {
namespace {

constexpr int64_t kDefaultAlignment = 4096;
constexpr unsigned kBasicMask = STATX_TYPE | STATX_SIZE | STATX_INO | STATX_MTIME | STATX_NLINK;

#ifdef STATX_DIOALIGN  // Linux 6.1
constexpr unsigned kFullMask = kBasicMask | STATX_DIOALIGN;

int64_t direct_alignment_of(const struct statx& fields) {
  if ((fields.stx_mask & STATX_DIOALIGN) == 0) return kDefaultAlignment;
  if (fields.stx_dio_mem_align == 0) return 0;
  return std::max(fields.stx_dio_mem_align, fields.stx_dio_offset_align);
}
#else
constexpr unsigned kFullMask = kBasicMask;

int64_t direct_alignment_of(const struct statx&) { return kDefaultAlignment; }
#endif

struct statx checked_status(int folder, const char* name, int flags, unsigned mask,
                            const std::string& path) {
  struct statx fields {};
  if (::statx(folder, name, flags, mask, &fields) != 0) {
    throw error_from_errno(errno, "open", path);
  }
  if (!S_ISREG(fields.stx_mode)) {
    const char* kind = S_ISDIR(fields.stx_mode)    ? "a directory"
                       : S_ISFIFO(fields.stx_mode) ? "a FIFO"
                                                   : "a device or a socket";
    throw Error(ErrorKind::config, message(path, ": is ", kind, ", not a regular file"));
  }
  return fields;
}

FileIdentity identity_of(const struct statx& fields) {
  FileIdentity identity;
  identity.device = (uint64_t{fields.stx_dev_major} << 32) | fields.stx_dev_minor;
  identity.inode = fields.stx_ino;
  identity.size_bytes = static_cast<int64_t>(fields.stx_size);
  identity.modified_ns = fields.stx_mtime.tv_sec * 1'000'000'000 + fields.stx_mtime.tv_nsec;
  return identity;
}

struct statx status_of_open(int fd, unsigned mask, const std::string& path) {
  return checked_status(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, path);
}

}  // namespace

DirectMode parse_direct_mode(const std::string& name) {
  if (name == "auto") return DirectMode::automatic;
  if (name == "require") return DirectMode::require;
  if (name == "off") return DirectMode::off;
  throw Error(ErrorKind::config,
              message("direct must be 'auto', 'require' or 'off', not '", name, "'"));
}

FileInfo inspect_file(const std::string& path) {
  const struct statx fields = checked_status(AT_FDCWD, path.c_str(), 0, kFullMask, path);
  return {identity_of(fields), direct_alignment_of(fields)};
}

DirectFile::DirectFile(std::string path, DirectMode mode, int64_t min_alignment)
    : path_(std::move(path)), mode_(mode) {
  inspect_file(path_);  // opening a FIFO or a device would have effects of its own
  if (mode != DirectMode::off) {
    direct_fd_ = UniqueFd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    // EINVAL: this file system has no direct reads. Anything else concerns the file itself.
    if (!direct_fd_.valid() && errno != EINVAL) throw error_from_errno(errno, "open", path_);
  }
  if (mode != DirectMode::require) {
    buffered_fd_ = UniqueFd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (!buffered_fd_.valid()) throw error_from_errno(errno, "open", path_);
  }
  if (direct_fd_.valid() && buffered_fd_.valid() &&
      identity_of(status_of_open(direct_fd_.get(), kBasicMask, path_)) !=
          identity_of(status_of_open(buffered_fd_.get(), kBasicMask, path_))) {
    throw Error(ErrorKind::file_changed,
                message(path_, ": was replaced while it was being opened"));
  }
  if (any_fd() >= 0) {
    const struct statx fields = status_of_open(any_fd(), kFullMask, path_);
    identity_ = identity_of(fields);
    const int64_t direct_alignment = direct_alignment_of(fields);
    if (direct_alignment == 0) direct_fd_ = UniqueFd();
    if (direct_fd_.valid()) alignment_ = std::max(direct_alignment, min_alignment);
  }
  if (mode == DirectMode::require && !direct_fd_.valid()) {
    throw Error(ErrorKind::direct_io,
                message(path_,
                        ": the file system refuses O_DIRECT; direct='auto' or 'off' reads "
                        "through the page cache"));
  }
}

int DirectFile::any_fd() const {
  return direct_fd_.valid() ? direct_fd_.get() : buffered_fd_.get();
}

int64_t DirectFile::size_now() const noexcept {
  struct stat fields {};
  return ::fstat(any_fd(), &fields) == 0 ? fields.st_size : -1;
}

DirectFile::~DirectFile() {
  if (!kept_open_) return;
  direct_fd_.release();
  buffered_fd_.release();
}

void DirectFile::check_unchanged() const {
  const struct statx fields = status_of_open(any_fd(), kBasicMask, path_);
  const FileIdentity now = identity_of(fields);
  if (now == identity_ && fields.stx_nlink > 0) return;
  std::string what = fields.stx_nlink == 0 ? "was deleted or replaced" : "was rewritten";
  if (now.size_bytes != identity_.size_bytes) {
    what = message("changed from ", identity_.size_bytes, " to ", now.size_bytes, " bytes");
  }
  throw Error(ErrorKind::file_changed, message(path_, ": ", what, " while it was being read"));
}

}  // namespace s3io
