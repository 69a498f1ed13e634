// What the writers of one store, in one process, share: queues that are kept for the next writer,
// counters, and which folders were rid of the temporary files of dead writers.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "io/fault_engine.h"
#include "io/write_queue.h"
#include "memory/buffer_pool.h"

namespace s3io {

// Thread-safe.
class WriteEngine {
 public:
  // Most bytes of one write, but for files with a larger alignment: one alignment then.
  static constexpr int64_t kBlockBytes = int64_t{1} << 20;
  static constexpr int kDepth = 8;  // writes in flight, per writer
  // Of the buffer that a writer copies into: as many in flight while one is filled, and one that
  // came back meanwhile.
  static constexpr int kStagedBlocks = kDepth + 2;

  struct Options {
    DirectMode direct = DirectMode::automatic;
    int64_t min_alignment = 0;
    bool sync = true;
    bool checksums = true;
    double timeout_s = 30;  // longest wait without progress
    EngineKind engine = EngineKind::automatic;
    std::shared_ptr<const FaultPlan> faults = nullptr;  // tests only; counts per writer
  };

  // `pool`: the buffers that writers copy into; null: an allocation per writer.
  WriteEngine(Options options, std::shared_ptr<BufferPool> pool)
      : options_(std::move(options)), pool_(std::move(pool)) {}

  const Options& options() const { return options_; }
  BufferPool* pool() { return pool_.get(); }
  WriteCounters& counters() { return counters_; }

  std::unique_ptr<WriteQueue> borrow();
  void give_back(std::unique_ptr<WriteQueue> queue);
  // Removes what dead writers left in the folder, the first time it is asked for this folder.
  // `on_progress`: as for remove_abandoned.
  void tidy(const std::string& folder, const std::function<void()>& on_progress);

 private:
  Options options_;
  std::shared_ptr<BufferPool> pool_;
  WriteCounters counters_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<WriteQueue>> idle_;
  std::set<std::string> tidied_;
};

}  // namespace s3io
