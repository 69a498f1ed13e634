#include "reader/cache_filler.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/align.h"
#include "base/error.h"
#include "base/fork_count.h"
#include "base/unique_fd.h"
#include "io/page_cache.h"

namespace s3io {
namespace {

constexpr int64_t kPieceBytes = int64_t{16} << 20;  // between two looks at `stopping_`
constexpr int kPopulateRead = 22;                   // MADV_POPULATE_READ, as in linux/mman.h

// Brings a range that begins at a multiple of the page size into the page cache. False when the
// file cannot be read, or not in this way.
bool populate(int fd, int64_t begin, int64_t length) {
  const auto bytes = static_cast<size_t>(length);
  void* mapping = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, begin);
  if (mapping == MAP_FAILED) return false;
  static_cast<void>(::madvise(mapping, bytes, MADV_HUGEPAGE));
  const bool done = ::madvise(mapping, bytes, kPopulateRead) == 0;
  ::munmap(mapping, bytes);
  return done;
}

bool read_through(int fd, int64_t begin, int64_t length) {
  std::vector<std::byte> scratch(size_t{1} << 20);
  const int64_t end = begin + length;
  while (begin < end) {
    const auto wanted = std::min(scratch.size(), static_cast<size_t>(end - begin));
    const ssize_t count = ::pread(fd, scratch.data(), wanted, begin);
    if (count <= 0) return false;
    begin += count;
  }
  return true;
}

int64_t size_of(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : 0;
}

}  // namespace

CacheFiller::CacheFiller(std::vector<std::string> paths, int64_t share, int64_t count,
                         std::atomic<int64_t>& filled)
    : paths_(std::move(paths)),
      share_(share),
      count_(count),
      filled_(filled),
      owner_(fork_count()) {
  if (count < 1 || share < 0 || share >= count) {
    throw Error(ErrorKind::config, message("share ", share, " of ", count, " does not exist"));
  }
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    throw Error(ErrorKind::out_of_memory,
                message("cannot start the thread that fills the page cache: ", error.what(),
                        "; raise the limit of processes (ulimit -u)"));
  }
}

void CacheFiller::stop() {
  if (!thread_.joinable()) return;
  if (fork_count() != owner_) {
    thread_.detach();
    return;
  }
  stopping_ = true;
  thread_.join();
}

void CacheFiller::run() noexcept {
  try {
    fill_share();
  } catch (const std::exception&) {  // no memory: the reader does without
  }
  done_.store(true, std::memory_order_release);
}

// This share's part of all bytes, as if the files were one.
void CacheFiller::fill_share() {
  std::vector<int64_t> sizes;
  int64_t total = 0;
  for (const std::string& path : paths_) total += sizes.emplace_back(size_of(path));
  const int64_t part = total / count_;
  const int64_t first = part * share_;
  const int64_t last = share_ + 1 == count_ ? total : first + part;
  int64_t file_begin = 0;
  for (size_t index = 0; index < paths_.size() && !stopping_; ++index) {
    const int64_t begin = std::max<int64_t>(first - file_begin, 0);
    const int64_t end = std::min(last - file_begin, sizes[index]);
    if (begin < end) fill(paths_[index], begin, end);
    file_begin += sizes[index];
  }
}

void CacheFiller::fill(const std::string& path, int64_t begin, int64_t end) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return;
  static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL));
  int64_t next = 0;
  for (int64_t position = align_down(begin, kHugePageBytes); position < end && !stopping_;
       position = next) {
    next = std::min(end, position + kPieceBytes);
    const int64_t length = next - position;
    const int64_t cached = cached_bytes(fd.get(), position, length);
    if (cached >= length) continue;
    if (!populate(fd.get(), position, length) && !read_through(fd.get(), position, length)) return;
    filled_.fetch_add(length - std::max<int64_t>(cached, 0), std::memory_order_relaxed);
  }
}

}  // namespace s3io
