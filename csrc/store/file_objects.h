// Files of a mounted file system as the objects of a store: opened once and kept open, read
// directly where they can be.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/fork_owned.h"
#include "io/fault_engine.h"
#include "io/io_engine.h"
#include "store/file_cache.h"
#include "store/store.h"

namespace s3io {

class FileObjects final : public Store {
 public:
  struct Options {
    DirectMode direct = DirectMode::automatic;
    EngineKind engine = EngineKind::automatic;
    int64_t min_alignment = 0;     // of direct reads, bytes; 0: what the file system asks for
    int64_t max_alignment = 0;     // files that need more are not read directly; 0: any is well
    int64_t min_direct_bytes = 0;  // with `automatic`, shorter reads go through the page cache
    std::shared_ptr<const FaultPlan> faults = nullptr;  // tests only; counts per reader
  };

  explicit FileObjects(Options options);

  ObjectInfo stat(const std::string& path) override;
  std::vector<std::string> list(const std::string& prefix) override;
  std::shared_ptr<Object> open(const std::string& path) override { return open_file(path); }
  std::shared_ptr<Object> open(const std::string& path, const ObjectVersion& version) override;
  size_t open_all(std::span<const ObjectToOpen> wanted,
                  std::vector<std::shared_ptr<Object>>& out) override;
  void open_soon(std::span<const ObjectToOpen> wanted) override;
  int64_t max_open_objects() const override { return files_.max_files(); }
  std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options,
                                           ReadCounters& counters) override;

  std::shared_ptr<DirectFile> open_file(const std::string& path);
  // Why the last reader took threads though `automatic` would rather have io_uring; empty if it did
  // not.
  std::string fallback_reason();

 private:
  // Opening a file that the kernel does not know waits for the device, more than once.
  static constexpr int kOpeningThreads = 16;

  struct Opening {
    std::vector<ObjectToOpen> soon;  // what the crew opens
    Crew crew{kOpeningThreads};
  };

  // Null where another thread has it, or another process.
  Opening* opening(const std::unique_lock<std::mutex>& lock);
  // Throws Error(file_changed | direct_io).
  void check(DirectFile& file, const ObjectVersion& version) const;

  const Options options_;
  FileCache files_;
  std::mutex opening_mutex_;    // one opens with the crew; others, meanwhile, without
  ForkOwned<Opening> opening_;  // since there was much to open
  std::mutex mutex_;            // guards what follows
  std::string fallback_reason_;
};

}  // namespace s3io
