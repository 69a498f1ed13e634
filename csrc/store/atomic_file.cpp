#include "store/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "base/error.h"
#include "base/unique_fd.h"

namespace s3io {
namespace {

constexpr size_t kMostPerCall = size_t{1} << 30;

void write_all(int fd, std::span<const std::byte> data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t count = ::write(fd, data.data(), std::min(data.size(), kMostPerCall));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw error_from_errno(errno, "write", path);
    data = data.subspan(static_cast<size_t>(count));
  }
}

// A new file next to `path`, with the mode that files get here; `name` becomes its path.
UniqueFd create_beside(const std::string& path, std::string& name) {
  constexpr int kAttempts = 100;  // names may be left from a process of this number that was killed
  static std::atomic<uint64_t> counter{0};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    name = message(path, ".", ::getpid(), ".", counter.fetch_add(1), ".tmp");
    UniqueFd fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (fd.valid()) return fd;
    if (errno != EEXIST) break;
  }
  throw error_from_errno(errno, "create", path);
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void sync_folder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) throw error_from_errno(errno, "sync", folder);
}

}  // namespace

void write_file_atomically(const std::string& path, std::span<const std::byte> data, bool sync) {
  std::string temporary;
  const UniqueFd fd = create_beside(path, temporary);
  try {
    write_all(fd.get(), data, path);
    if (sync && ::fsync(fd.get()) != 0) throw error_from_errno(errno, "sync", path);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      throw error_from_errno(errno, "replace", path);
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (sync) sync_folder(folder_of(path));
}

}  // namespace s3io
