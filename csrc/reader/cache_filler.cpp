#include "reader/cache_filler.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork_count.h"
#include "base/unique_fd.h"
#include "io/page_cache.h"

namespace s3io {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;
// Asked of the device before the piece that is waited for: what readahead by itself asks for (128
// KiB is common) leaves an NVMe device mostly idle.
constexpr int64_t kPiecesAhead = 16;
constexpr milliseconds kExitTimeout{1000};

int64_t size_of(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : 0;
}

}  // namespace

class CacheFiller::Work {
 public:
  Work(std::vector<std::string> paths, int64_t share, int64_t count,
       std::shared_ptr<std::atomic<int64_t>> filled)
      : paths_(std::move(paths)), share_(share), count_(count), filled_(std::move(filled)) {}

  // The thread.
  void run() noexcept;

  void stop() { stopping_ = true; }
  bool wait_for_exit(milliseconds timeout);
  bool is_done() {
    const std::lock_guard lock(mutex_);
    return done_;
  }

 private:
  void fill_share();
  void fill(const std::string& path, int64_t begin, int64_t end);

  const std::vector<std::string> paths_;
  const int64_t share_;
  const int64_t count_;
  const std::shared_ptr<std::atomic<int64_t>> filled_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;  // guards what follows
  std::condition_variable ended_;
  bool done_ = false;
};

void CacheFiller::Work::run() noexcept {
  try {
    fill_share();
  } catch (const std::exception&) {  // no memory: the reader does without
  }
  const std::lock_guard lock(mutex_);
  done_ = true;
  ended_.notify_all();
}

bool CacheFiller::Work::wait_for_exit(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return ended_.wait_until(lock, std::chrono::system_clock::now() + timeout,
                           [this] { return done_; });
}

// This share's part of all bytes, as if the files were one.
void CacheFiller::Work::fill_share() {
  std::vector<int64_t> sizes;
  int64_t total = 0;
  for (const std::string& path : paths_) {
    if (stopping_) return;
    total += sizes.emplace_back(size_of(path));
  }
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

void CacheFiller::Work::fill(const std::string& path, int64_t begin, int64_t end) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return;
  std::array<int64_t, kPiecesAhead> missing{};  // bytes, of the pieces from `position` to `asked`
  const auto piece = [&](int64_t offset) -> int64_t& {
    return missing[static_cast<size_t>((offset - begin) / kPieceBytes % kPiecesAhead)];
  };
  int64_t asked = begin;
  for (int64_t position = begin; position < end && !stopping_; position += kPieceBytes) {
    for (; asked < std::min(end, position + kPiecesAhead * kPieceBytes); asked += kPieceBytes) {
      const int64_t length = std::min(kPieceBytes, end - asked);
      const int64_t cached = std::max<int64_t>(cached_bytes(fd.get(), asked, length), 0);
      piece(asked) = std::max<int64_t>(length - cached, 0);
      if (piece(asked) == 0) continue;
      static_cast<void>(::posix_fadvise(fd.get(), asked, length, POSIX_FADV_WILLNEED));
    }
    if (piece(position) == 0) continue;
    std::byte last_byte{};
    if (::pread(fd.get(), &last_byte, 1, std::min(end, position + kPieceBytes) - 1) != 1) return;
    filled_->fetch_add(piece(position), std::memory_order_relaxed);
  }
}

CacheFiller::CacheFiller(std::vector<std::string> paths, int64_t share, int64_t count,
                         std::shared_ptr<std::atomic<int64_t>> filled)
    : owner_(fork_count()) {
  if (count < 1 || share < 0 || share >= count) {
    throw Error(ErrorKind::config, message("share ", share, " of ", count, " does not exist"));
  }
  work_ = std::make_shared<Work>(std::move(paths), share, count, std::move(filled));
  try {
    thread_ = std::thread([work = work_] { work->run(); });
  } catch (const std::system_error& error) {
    throw Error(ErrorKind::out_of_memory,
                message("cannot start the thread that fills the page cache: ", error.what(),
                        "; raise the limit of processes (ulimit -u)"));
  }
}

void CacheFiller::stop() {
  if (!thread_.joinable()) return;
  if (fork_count() != owner_) {
    // Its lock and its thread are the parent's: what names the thread may by now name one of this
    // process.
    new std::shared_ptr<Work>(std::move(work_));
    new std::thread(std::move(thread_));
    return;
  }
  work_->stop();
  if (work_->wait_for_exit(kExitTimeout)) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

bool CacheFiller::is_done() const {
  return work_ == nullptr || fork_count() != owner_ || work_->is_done();
}

}  // namespace s3io
