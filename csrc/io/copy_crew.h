// Threads that share copies out of the page cache with the thread that wants them.
//
// io_uring makes such a copy in the thread that submits it, one after the other, and a device has
// no part in it: several processors do it faster.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "io/io_engine.h"

namespace s3io {

class CopyCrew {
 public:
  // `size` threads, the calling one among them; fewer where no more can be started.
  explicit CopyCrew(int size);
  CopyCrew(const CopyCrew&) = delete;
  CopyCrew& operator=(const CopyCrew&) = delete;
  ~CopyCrew();

  // Carries out all of these reads, and returns when that is done. It does not wait for data
  // (RWF_NOWAIT): what is not in the page cache, or not yet, comes back short or with -EAGAIN;
  // where the file system cannot tell, with -EOPNOTSUPP. One thread at a time. Throws
  // std::bad_alloc, before anything is done, where there are more slices than ever before.
  void run(std::span<IoRequest* const> copies);

  int size() const { return static_cast<int>(threads_.size()) + 1; }

 private:
  struct Slice {  // of a request, which it follows in the file's order
    IoRequest* request;
    int64_t begin;
    int64_t length;
    int64_t result;
  };

  int64_t cut(std::span<IoRequest* const> copies);  // the bytes of all
  void copy_slices(std::unique_lock<std::mutex>& lock);
  void join_results() const;
  void work();

  std::mutex mutex_;  // guards what follows
  std::condition_variable work_arrived_;
  std::condition_variable work_finished_;
  std::vector<Slice> slices_;
  size_t begun_ = 0;
  size_t finished_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace s3io
