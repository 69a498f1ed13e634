#include "io/file_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/unique_fd.h"

namespace s3io {

int FileCalls::fault() {
  if (faults_ == nullptr) return 0;
  const auto planned = faults_->by_call.find(made_++);
  if (planned == faults_->by_call.end()) return 0;
  if (planned->second == kFaultKill) kill_this_process();
  if (planned->second == kFaultHang) {
    faults_->hang->wait();
    return 0;
  }
  return planned->second;
}

template <typename Call>
int FileCalls::made(Call call) {
  int error_number = EINTR;
  for (int attempt = 0; attempt < kMaxAttempts && error_number == EINTR; ++attempt) {
    error_number = fault();
    if (error_number != 0) continue;
    const int result = call();
    if (result >= 0) return result;
    error_number = errno;
  }
  return -error_number;
}

int FileCalls::create(const std::string& path, mode_t mode) {
  return made([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode); });
}

int FileCalls::allocate(int fd, int64_t size_bytes) {
  return made([&] { return ::fallocate(fd, 0, 0, size_bytes); });
}

int FileCalls::truncate(int fd, int64_t size_bytes) {
  return made([&] { return ::ftruncate(fd, size_bytes); });
}

int FileCalls::set_mode(int fd, mode_t mode) {
  return made([&] { return ::fchmod(fd, mode); });
}

int FileCalls::set_attribute(int fd, const char* name, std::string_view value) {
  return made([&] { return ::fsetxattr(fd, name, value.data(), value.size(), 0); });
}

int FileCalls::begin_write_back(int fd, int64_t offset, int64_t length) {
  return made([&] { return ::sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE); });
}

int FileCalls::end_write_back(int fd, int64_t offset, int64_t length) {
  constexpr unsigned kAll =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  return made([&] { return ::sync_file_range(fd, offset, length, kAll); });
}

int FileCalls::sync(int fd) {
  return made([&] { return ::fsync(fd); });
}

int FileCalls::sync_folder(const std::string& folder) {
  return made([&] {
    const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return fd.valid() ? ::fsync(fd.get()) : -1;
  });
}

int FileCalls::rename(const std::string& from, const std::string& to) {
  return made([&] { return ::rename(from.c_str(), to.c_str()); });
}

int FileCalls::rename_new(const std::string& from, const std::string& to) {
  return made(
      [&] { return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE); });
}

int FileCalls::link(const std::string& from, const std::string& to) {
  return made([&] { return ::link(from.c_str(), to.c_str()); });
}

int FileCalls::unlink(const std::string& path) {
  return made([&] { return ::unlink(path.c_str()); });
}

}  // namespace s3io
