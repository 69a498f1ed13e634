#include "store/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

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
  std::string temporary = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) throw error_from_errno(errno, "create", path);
  try {
    // mkostemp makes files private; give this one the mode that open() would have given it.
    const mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(fd.get(), 0666 & ~mask) != 0) throw error_from_errno(errno, "write", path);
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
