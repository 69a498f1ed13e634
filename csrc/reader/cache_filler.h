// Brings files into the page cache with large reads in file order, in a thread of its own.
//
// For data sets of small records that are read in random order and fit in memory: a device reads
// neighbouring records together many times faster than one by one. The reader goes on beside it: it
// reads from the page cache what is there already, directly what is not.
//
// Filling is help, not duty: a file that cannot be opened or read is left to the reader, which then
// reports what is wrong with it. `filled_bytes` says how far it got.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace s3io {

class CacheFiller {
 public:
  // Of `count` fillers that share the files, each reads its part of the bytes. Starts at once.
  // Throws Error(config) for a share that does not exist, Error(out_of_memory) without a thread.
  CacheFiller(std::vector<std::string> paths, int64_t share, int64_t count);
  CacheFiller(const CacheFiller&) = delete;
  CacheFiller& operator=(const CacheFiller&) = delete;
  ~CacheFiller() { stop(); }

  // Ends the thread after the read under way. In a forked child, which has no such thread, does
  // nothing. Idempotent.
  void stop();

  // Bytes that were not in the page cache and are now.
  int64_t filled_bytes() const { return state_->filled_bytes.load(std::memory_order_relaxed); }
  bool is_done() const { return state_->done.load(std::memory_order_acquire); }

 private:
  struct State {
    std::vector<std::string> paths;
    int64_t share;
    int64_t count;
    std::atomic<int64_t> filled_bytes{0};
    std::atomic<bool> done{false};
    std::atomic<bool> stopping{false};

    void run() noexcept;
    void fill(const std::string& path, int64_t begin, int64_t end, std::vector<std::byte>& scratch);
  };

  std::shared_ptr<State> state_;  // shared with the thread, which a hanging read may keep
  std::thread thread_;
  uint32_t owner_;  // fork_count() of the process that made it
};

}  // namespace s3io
