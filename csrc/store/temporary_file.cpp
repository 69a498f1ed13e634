#include "store/temporary_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <random>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "io/file_status.h"

namespace s3io {
namespace {

constexpr size_t kNameBytes = 100;  // of the final name: a file name has at most 255
constexpr int kAttempts = 100;
constexpr int64_t kEntriesOfProgress = 256;
constexpr int kMostLinks = 40;  // as for the kernel
constexpr mode_t kPermissions = 0777;
constexpr mode_t kNewMode = 0666;  // less the umask

std::string random_digits() {
  constexpr const char* kHex = "0123456789abcdef";
  std::random_device random;
  std::string digits;
  for (int index = 0; index < 16; ++index) digits += kHex[random() % 16];
  return digits;
}

// Of the file of this name; none where a link has it.
std::optional<mode_t> mode_of(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || S_ISLNK(status.st_mode)) return std::nullopt;
  return status.st_mode & kPermissions;
}

std::string temporary_name(const std::string& path) {
  const size_t slash = path.rfind('/');
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return message(path.substr(0, begin), kTemporaryPrefix, random_digits(), "-",
                 path.substr(begin, kNameBytes));
}

bool is_still_linked(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 && status.st_nlink > 0;
}

}  // namespace

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string behind_links(const std::string& path) {
  std::string reached = path;
  for (int links = 0; links <= kMostLinks; ++links) {
    std::array<char, PATH_MAX> target{};
    const ssize_t length = ::readlink(reached.c_str(), target.data(), target.size());
    if (length < 0) return reached;  // no link, or nothing there
    const std::string_view text(target.data(), static_cast<size_t>(length));
    const bool is_absolute = text.starts_with('/');
    reached = is_absolute ? std::string(text) : message(folder_of(reached), "/", text);
  }
  throw write_error_from_errno(ELOOP, "follow its links", path);
}

Error exists_already(const std::string& path) {
  return Error(ErrorKind::exists, message(path, ": there is a file of this name already"), true);
}

TemporaryFile::TemporaryFile(std::string path, DirectMode mode, int64_t min_alignment,
                             std::shared_ptr<FileCalls> calls)
    : path_(std::move(path)), calls_(std::move(calls)) {
  create();
  output_ = {.fd = fd_.get(), .mode = mode};
  try {
    if (mode != DirectMode::off) lock_and_align(min_alignment);
  } catch (...) {
    discard();
    throw;
  }
}

void TemporaryFile::create() {
  old_mode_ = mode_of(path_);
  // Nobody reads along who may not read the old file; the owner's next start can lock it.
  const mode_t mode = old_mode_ ? *old_mode_ | S_IWUSR : kNewMode;
  int result = -EEXIST;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    temporary_path_ = temporary_name(path_);
    result = calls_->create(temporary_path_, mode);
    if (result == -EEXIST) continue;
    if (result < 0) break;
    fd_ = UniqueFd(result);
    // Where there are no locks nobody else can take this one either, so the file is safe.
    ::flock(fd_.get(), LOCK_EX | LOCK_NB);
    if (is_still_linked(fd_.get())) return;
    fd_ = UniqueFd();  // another process took it for abandoned, just before the lock
  }
  temporary_path_.clear();
  throw write_error_from_errno(-result, "create", path_);
}

void TemporaryFile::lock_and_align(int64_t min_alignment) {
  const FileStatus status = status_of_open(fd_.get());
  const int64_t alignment = status.direct_alignment;
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  const bool is_direct =
      alignment > 0 && flags >= 0 && ::fcntl(fd_.get(), F_SETFL, flags | O_DIRECT) == 0;
  if (is_direct) {
    output_.alignment = std::max({alignment, min_alignment, int64_t{2}});
    output_.memory_alignment = std::max(status.memory_alignment, min_alignment);
  }
  if (!is_direct && output_.mode == DirectMode::require) {
    throw Error(ErrorKind::direct_io,
                message(path_,
                        ": the file system refuses O_DIRECT; direct_io='auto' or 'off' writes "
                        "through the page cache"));
  }
}

void TemporaryFile::keep_mode() {
  if (!old_mode_) return;
  struct stat status {};
  // Where files have no permissions of their own, all have the same.
  if (::fstat(fd_.get(), &status) == 0 && (status.st_mode & kPermissions) == *old_mode_) return;
  const int result = calls_->set_mode(fd_.get(), *old_mode_);
  if (result < 0) throw write_error_from_errno(-result, "keep the permissions", path_);
}

void TemporaryFile::commit() {
  const int renamed = calls_->rename(temporary_path_, path_);
  if (renamed < 0) throw write_error_from_errno(-renamed, "replace", path_);
  temporary_path_.clear();
  fd_ = UniqueFd();
}

void TemporaryFile::commit_if_absent() {
  const int renamed = rename_if_absent();
  if (renamed == -EEXIST) throw exists_already(path_);
  if (renamed == -EPERM || renamed == -EOPNOTSUPP || renamed == -ENOSYS) {
    throw Error(ErrorKind::config,
                message(path_,
                        ": its file system cannot write a file only where there is none: it has "
                        "neither renameat2 nor links; leave if_absent out"),
                true);
  }
  if (renamed < 0) throw write_error_from_errno(-renamed, "give it its name", path_);
  temporary_path_.clear();
  fd_ = UniqueFd();
}

int TemporaryFile::rename_if_absent() {
  const int renamed = calls_->rename_new(temporary_path_, path_);
  if (renamed != -EINVAL && !may_be_filtered(-renamed)) return renamed;
  // NFS has links alone. Where the reply to one was lost, it says of its own that it is there.
  const int linked = calls_->link(temporary_path_, path_);
  if (linked == 0 || (linked == -EEXIST && is_in_place())) {
    calls_->unlink(temporary_path_);  // else the next start does
    return 0;
  }
  return linked;
}

bool TemporaryFile::is_in_place() const {
  struct stat here {
  }, there{};
  return ::fstat(fd_.get(), &here) == 0 && ::lstat(path_.c_str(), &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

void TemporaryFile::sync_folder() {
  const int synced = calls_->sync_folder(folder_of(path_));
  if (synced < 0) {
    throw write_error_from_errno(-synced, "make sure of its name, though the new file is in place",
                                 path_);
  }
}

void TemporaryFile::discard() noexcept {
  if (!temporary_path_.empty()) calls_->unlink(temporary_path_);  // else the next start does
  temporary_path_.clear();
  fd_ = UniqueFd();
}

void TemporaryFile::leave() noexcept {
  temporary_path_.clear();
  fd_.release();
}

void TemporaryFile::discard_but_leave_open() noexcept {
  fd_.release();
  discard();
}

void remove_abandoned(const std::string& folder, const std::function<void()>& on_progress) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(folder.c_str()), ::closedir);
  if (stream == nullptr) return;
  const int at = ::dirfd(stream.get());
  int64_t seen = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    if (on_progress && ++seen % kEntriesOfProgress == 0) on_progress();
    if (std::strncmp(entry->d_name, kTemporaryPrefix, std::strlen(kTemporaryPrefix)) != 0) continue;
    const UniqueFd fd(::openat(at, entry->d_name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (fd.valid() && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlinkat(at, entry->d_name, 0);
  }
}

}  // namespace s3io
