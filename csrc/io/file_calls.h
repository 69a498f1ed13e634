// The system calls around a file that is being written, other than the writes themselves: a seam,
// so that tests can let any of them fail, or end the process there.
//
// Each returns 0 (`create`: a descriptor) or -errno, and is repeated after EINTR. Thread-safe.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "io/fault_engine.h"

namespace s3io {

class FileCalls {
 public:
  // `faults`: null but in tests.
  explicit FileCalls(std::shared_ptr<const FaultPlan> faults = nullptr)
      : faults_(std::move(faults)) {}

  // A new file, for writing, with this mode less the umask. -EEXIST when there is one.
  int create(const std::string& path, mode_t mode);
  // Reserves space for the first `size_bytes` of the file, and makes it that long.
  int allocate(int fd, int64_t size_bytes);
  int truncate(int fd, int64_t size_bytes);
  int set_mode(int fd, mode_t mode);
  int set_attribute(int fd, const char* name, std::string_view value);
  // Begins to write these bytes back from the page cache; waits for that. A `sync` does more.
  int begin_write_back(int fd, int64_t offset, int64_t length);
  int end_write_back(int fd, int64_t offset, int64_t length);
  int sync(int fd);
  int sync_folder(const std::string& folder);
  int rename(const std::string& from, const std::string& to);
  // -EEXIST where there is one of this name; -EINVAL where the file system cannot do this.
  int rename_new(const std::string& from, const std::string& to);
  int link(const std::string& from, const std::string& to);  // -EEXIST, too
  int unlink(const std::string& path);

 private:
  template <typename Call>
  int made(Call call);
  int fault();

  std::shared_ptr<const FaultPlan> faults_;
  std::atomic<int64_t> made_{0};
};

}  // namespace s3io
