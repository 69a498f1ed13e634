#include "io/copy_crew.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <exception>

#include "base/align.h"

namespace s3io {
namespace {

// Several for each thread, so that one that wakes late, or is slow, is not waited for; none so
// short that getting it takes longer than copying it. Short reads are taken several at a time.
constexpr int64_t kSlicesPerThread = 8;
constexpr int64_t kShortestSlice = int64_t{64} << 10;
constexpr int64_t kLongestSlice = int64_t{256} << 10;

int64_t copy(const IoRequest& request, int64_t begin, int64_t length) {
  const iovec destination{request.data + begin, static_cast<size_t>(length)};
  const ssize_t count = ::preadv2(request.fd, &destination, 1, request.offset + begin, RWF_NOWAIT);
  return count >= 0 ? count : -errno;
}

}  // namespace

CopyCrew::CopyCrew(int size) {
  threads_.reserve(static_cast<size_t>(size));
  for (int index = 1; index < size; ++index) {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::exception&) {
      break;  // fewer still do everything
    }
  }
}

CopyCrew::~CopyCrew() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void CopyCrew::run(std::span<IoRequest* const> copies) {
  std::unique_lock lock(mutex_);
  const int64_t bytes = cut(copies);
  begun_ = finished_ = 0;
  // The calling thread makes the first one.
  const size_t turns = static_cast<size_t>(align_up(bytes, kShortestSlice) / kShortestSlice);
  for (size_t waking = 1; waking < std::min(turns, threads_.size() + 1); ++waking) {
    work_arrived_.notify_one();
  }
  copy_slices(lock);
  work_finished_.wait(lock, [this] { return finished_ == slices_.size(); });
  join_results();
  slices_.clear();
}

int64_t CopyCrew::cut(std::span<IoRequest* const> copies) {
  int64_t total = 0;
  for (const IoRequest* request : copies) total += request->length;
  const int64_t wanted =
      std::clamp(total / (size() * kSlicesPerThread), kShortestSlice, kLongestSlice);
  const int64_t slice_bytes = align_up(wanted, kShortestSlice);
  // Here or not at all it fails for want of memory: nothing has changed yet.
  slices_.reserve(copies.size() + static_cast<size_t>(total / slice_bytes));
  for (IoRequest* request : copies) {
    request->result = 0;
    for (int64_t begin = 0; begin < request->length; begin += slice_bytes) {
      slices_.push_back({request, begin, std::min(slice_bytes, request->length - begin), 0});
    }
  }
  return total;
}

void CopyCrew::copy_slices(std::unique_lock<std::mutex>& lock) {
  while (begun_ < slices_.size()) {
    const size_t first = begun_;
    int64_t bytes = 0;
    while (begun_ < slices_.size() && bytes < kShortestSlice) bytes += slices_[begun_++].length;
    const std::span<Slice> taken(slices_.data() + first, begun_ - first);
    lock.unlock();
    for (Slice& slice : taken) slice.result = copy(*slice.request, slice.begin, slice.length);
    lock.lock();
    finished_ += taken.size();
  }
}

// A read ends where the first of its slices came back short.
void CopyCrew::join_results() const {
  const IoRequest* cut_off = nullptr;
  for (const Slice& slice : slices_) {
    IoRequest& request = *slice.request;
    if (slice.begin == 0) {
      request.result = slice.result;
    } else if (&request != cut_off) {
      request.result += std::max<int64_t>(slice.result, 0);
    }
    if (slice.result < slice.length) cut_off = &request;
  }
}

void CopyCrew::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_arrived_.wait(lock, [this] { return stopping_ || begun_ < slices_.size(); });
    if (stopping_) return;
    copy_slices(lock);
    if (finished_ == slices_.size()) work_finished_.notify_one();
  }
}

}  // namespace s3io
