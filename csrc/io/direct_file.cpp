#include "io/direct_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <utility>

#include "base/error.h"
#include "io/file_status.h"
#include "io/page_cache.h"

namespace s3io {
namespace {

ObjectVersion version_of(const FileStatus& status) {
  return {.device = status.device,
          .inode = status.inode,
          .size_bytes = status.size_bytes,
          .modified_ns = status.modified_ns};
}

// Throws Error for what is not a regular file.
FileStatus of_regular_file(const FileStatus& status, const std::string& path) {
  if (status.error_number != 0) throw error_from_errno(status.error_number, "open", path);
  if (!S_ISREG(status.mode)) {
    const char* kind = S_ISDIR(status.mode)    ? "a directory"
                       : S_ISFIFO(status.mode) ? "a FIFO"
                                               : "a device or a socket";
    throw Error(ErrorKind::config, message(path, ": is ", kind, ", not a regular file"));
  }
  return status;
}

// Whether a file keeps its inode number as long as it exists, on the file system of `fd`.
bool keeps_inode_numbers(int fd) {
  struct statfs system {};
  if (::fstatfs(fd, &system) != 0) return false;
  constexpr std::array<uint32_t, 9> kLocal{
      EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,    F2FS_SUPER_MAGIC,
      TMPFS_MAGIC,      RAMFS_MAGIC,     0x2fc12fc1 /* ZFS */, 0xca451a4e /* bcachefs */,
      0x3153464a /* JFS */};
  return std::ranges::find(kLocal, static_cast<uint32_t>(system.f_type)) != kLocal.end();
}

// "2026-11-25 10:20:30.123456789 UTC".
std::string time_text(int64_t nanoseconds_since_1970) {
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t fraction = nanoseconds_since_1970 % kSecond;
  if (fraction < 0) fraction += kSecond;
  const time_t seconds = (nanoseconds_since_1970 - fraction) / kSecond;
  std::tm parts{};
  std::array<char, 40> digits{};
  ::gmtime_r(&seconds, &parts);
  const size_t length = std::strftime(digits.data(), digits.size(), "%Y-%m-%d %H:%M:%S", &parts);
  std::snprintf(digits.data() + length, digits.size() - length, ".%09d UTC",
                static_cast<int>(fraction));
  return digits.data();
}

}  // namespace

DirectMode parse_direct_mode(const std::string& name) {
  if (name == "auto") return DirectMode::automatic;
  if (name == "require") return DirectMode::require;
  if (name == "off") return DirectMode::off;
  throw Error(ErrorKind::config,
              message("direct must be 'auto', 'require' or 'off', not '", name, "'"));
}

std::string difference(const ObjectVersion& before, const ObjectVersion& now, int fd) {
  if (now.size_bytes != before.size_bytes) {
    return message("it has ", now.size_bytes, " bytes and had ", before.size_bytes);
  }
  if (now.modified_ns != before.modified_ns) {
    return message("its time of change is ", time_text(now.modified_ns), " and was ",
                   time_text(before.modified_ns), ": it was written to, or touched");
  }
  if (before.inode == 0 || now.inode == before.inode || !keeps_inode_numbers(fd)) return "";
  return "it is another file of this name, of the same size and time of change";
}

FileInfo info_of(const FileStatus& status, const std::string& path) {
  const FileStatus regular = of_regular_file(status, path);
  return {version_of(regular), regular.direct_alignment};
}

FileInfo inspect_file(const std::string& path) { return info_of(status_of_path(path), path); }

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
  if (any_fd() >= 0) look(min_alignment);
  if (mode == DirectMode::require && !direct_fd_.valid()) {
    throw Error(ErrorKind::direct_io,
                message(path_,
                        ": the file system refuses O_DIRECT; direct='auto' or 'off' reads "
                        "through the page cache"));
  }
}

void DirectFile::look(int64_t min_alignment) {
  const FileStatus status = of_regular_file(status_of_open(any_fd()), path_);
  version_ = version_of(status);
  has_name_ = status.links > 0;
  if (direct_fd_.valid() && buffered_fd_.valid()) {
    const FileStatus other = of_regular_file(status_of_open(buffered_fd_.get()), path_);
    const std::string what = difference(version_, version_of(other), buffered_fd_.get());
    if (!what.empty()) {
      throw Error(ErrorKind::file_changed,
                  message(path_, ": changed while it was being opened: ", what));
    }
  }
  if (status.direct_alignment == 0) direct_fd_ = UniqueFd();
  if (direct_fd_.valid()) alignment_ = std::max(status.direct_alignment, min_alignment);
}

int DirectFile::any_fd() const {
  return direct_fd_.valid() ? direct_fd_.get() : buffered_fd_.get();
}

int64_t DirectFile::size_now() const noexcept {
  struct stat fields {};
  return ::fstat(any_fd(), &fields) == 0 ? fields.st_size : -1;
}

int64_t DirectFile::prefetch(int64_t offset, int64_t length) {
  if (!can_read_buffered()) return 0;
  // Where the kernel does not say what is there, it is read directly all the same.
  const bool is_asked = mode_ == DirectMode::automatic;
  if (is_asked && cached_bytes(buffered_fd(), offset, length) < 0) return 0;
  return bring_into_cache(buffered_fd(), offset, length);
}

DirectFile::~DirectFile() {
  if (!kept_open_) return;
  direct_fd_.release();
  buffered_fd_.release();
}

void DirectFile::check_unchanged() const {
  const FileStatus status = of_regular_file(status_of_open(any_fd()), path_);
  ObjectVersion now = version_of(status);
  now.inode = version_.inode;  // what is open is the same file
  std::string what = difference(version_, now, any_fd());
  if (what.empty() && has_name_ && status.links == 0) what = "it was deleted, or replaced";
  if (what.empty()) return;
  throw Error(ErrorKind::file_changed, message(path_, ": changed while it was being read: ", what));
}

}  // namespace s3io
