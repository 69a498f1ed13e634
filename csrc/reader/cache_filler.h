// Brings files into the page cache with large reads in file order, in a thread of its own.
//
// For data sets that fit in memory: small records in random order, of which a device reads
// neighbours together many times faster than one by one, and sets that are to stay in the page
// cache. The reader goes on beside it: it reads from the page cache what is there already, directly
// what is not.
//
// Note: how. Pieces of 1 MiB are asked for ahead (POSIX_FADV_WILLNEED), and waited for by reading a
// byte of each, so that nothing is copied. docs/design.md says what else was tried.
//
// Filling is help, not duty: a file that cannot be opened or read is left to the reader, which then
// reports what is wrong with it.
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
  // Of `count` fillers that share the files, each reads its part of the bytes. Adds to `filled` the
  // bytes that were not in the page cache. Starts at once. Throws Error(config) for a share that
  // does not exist, Error(out_of_memory) without a thread.
  CacheFiller(std::vector<std::string> paths, int64_t share, int64_t count,
              std::shared_ptr<std::atomic<int64_t>> filled);
  CacheFiller(const CacheFiller&) = delete;
  CacheFiller& operator=(const CacheFiller&) = delete;
  ~CacheFiller() { stop(); }

  // Ends the thread after the read under way; one that does not come back within a second is left
  // behind, with what it needs. In a forked child, which has no such thread, does nothing.
  // Idempotent.
  void stop();
  bool is_done() const;

 private:
  class Work;
  std::shared_ptr<Work> work_;  // shared with the thread, which may outlive this object
  uint32_t owner_;              // fork_count() of the process that made it
  std::thread thread_;
};

}  // namespace s3io
