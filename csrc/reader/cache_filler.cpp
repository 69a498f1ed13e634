#include "reader/cache_filler.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/fork_count.h"
#include "base/unique_fd.h"
#include "io/page_cache.h"

namespace s3io {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;
// Asked of the device ahead of the piece that is copied out: what readahead by itself asks for (128
// KiB is common) leaves an NVMe device mostly idle.
constexpr int64_t kPiecesAhead = 16;

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
  std::vector<std::byte> scratch(static_cast<size_t>(kPieceBytes));
  int64_t file_begin = 0;
  for (size_t index = 0; index < paths_.size() && !stopping_; ++index) {
    const int64_t begin = std::max<int64_t>(first - file_begin, 0);
    const int64_t end = std::min(last - file_begin, sizes[index]);
    if (begin < end) fill(paths_[index], begin, end, scratch);
    file_begin += sizes[index];
  }
}

void CacheFiller::fill(const std::string& path, int64_t begin, int64_t end,
                       std::vector<std::byte>& scratch) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return;
  std::array<bool, kPiecesAhead> missing{};  // of the pieces from `position` to `asked`
  int64_t asked = begin;
  for (int64_t position = begin; position < end && !stopping_; position += kPieceBytes) {
    for (; asked < std::min(end, position + kPiecesAhead * kPieceBytes); asked += kPieceBytes) {
      const int64_t length = std::min(kPieceBytes, end - asked);
      const bool is_missing = cache_state(fd.get(), asked, length) != CacheState::cached;
      missing[static_cast<size_t>((asked - begin) / kPieceBytes % kPiecesAhead)] = is_missing;
      if (!is_missing) continue;
      static_cast<void>(::posix_fadvise(fd.get(), asked, length, POSIX_FADV_WILLNEED));
    }
    if (!missing[static_cast<size_t>((position - begin) / kPieceBytes % kPiecesAhead)]) continue;
    const auto length = static_cast<size_t>(std::min(kPieceBytes, end - position));
    const ssize_t bytes = ::pread(fd.get(), scratch.data(), length, position);
    if (bytes <= 0) return;
    filled_.fetch_add(bytes, std::memory_order_relaxed);
  }
}

}  // namespace s3io
