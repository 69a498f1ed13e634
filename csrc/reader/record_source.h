// A data set as the reader sees it: files, record layout, and how to read them. Immutable but for
// its open files and counters; shared by all readers of one process.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "format/placement.h"
#include "format/record_layout.h"
#include "format/shard_table.h"
#include "io/fault_engine.h"
#include "io/read_queue.h"
#include "memory/buffer_pool.h"
#include "store/file_cache.h"

namespace s3io {

// Fields of a batch begin at multiples of it: a cache line.
inline constexpr int64_t kFieldAlignment = 64;

struct ReadOptions {
  DirectMode direct = DirectMode::automatic;
  EngineKind engine = EngineKind::automatic;
  int64_t chunk_bytes = int64_t{1} << 20;
  int depth = 16;              // reads in flight
  double read_timeout_s = 60;  // longest wait for one batch
  bool with_record_numbers = false;
  std::shared_ptr<const FaultPlan> faults = nullptr;  // tests only
};

struct ReaderCounters {
  ReadCounters reads;
  std::atomic<int64_t> batches{0};              // delivered
  std::atomic<int64_t> batch_bytes{0};          // bytes of records delivered
  std::atomic<int64_t> finished_batches{0};     // ready: delivered, or read ahead
  std::atomic<int64_t> copied_bytes{0};         // packed, converted, or copied out of the pool
  std::atomic<int64_t> converted_bytes{0};      // of those: fields converted or realigned
  std::atomic<int64_t> spilled_batches{0};      // copied out because tensors held too many buffers
  std::atomic<int64_t> reader_wait_ns{0};       // the reader waited for a free buffer
  std::atomic<int64_t> consumer_wait_ns{0};     // the training loop waited for data
  std::atomic<int64_t> quarantined_buffers{0};  // lost to reads that never came back
  // What other processes were told of each of these (bindings/reader.cpp).
  std::array<std::atomic<int64_t>, 16> published{};
};

class RecordSource {
 public:
  // `alignment`: what every direct read of these files satisfies; 1 when none is direct.
  // `identities`: one per shard, as they were when the shards were counted.
  RecordSource(ShardTable shards, RecordLayout layout, std::vector<FileIdentity> identities,
               int64_t alignment, ReadOptions options);

  const ShardTable& shards() const { return shards_; }
  const RecordLayout& layout() const { return layout_; }
  const ReadOptions& options() const { return options_; }
  int64_t alignment() const { return alignment_; }
  // Whether the field is delivered as a view of what was read, for every file.
  bool is_view(size_t field) const { return is_view_[field]; }
  ReaderCounters& counters() { return counters_; }

  // Bytes that a batch of `count` records needs: over-read, conversions and record numbers
  // included.
  int64_t batch_bytes(int64_t count) const;

  // Throws Error(config) when buffers of this pool cannot hold a batch of so many records.
  void check_buffers(const BufferPoolConfig& pool, int64_t batch_records) const;
  // Throws Error(config) when buffers of `pool_alignment` are not aligned enough for these files.
  void check_alignment(int64_t pool_alignment) const;

  // Files that may be open at once; a batch that needs more by itself opens them all the same.
  int64_t max_open_files() const { return files_.max_files(); }
  // The shard's file. Throws Error(file_changed) if it is not the one that was counted.
  std::shared_ptr<DirectFile> open(int64_t shard);

  struct ReaderOptions {
    int64_t fill_block_bytes = 0;  // of ReadQueueOptions
    int processes = 1;             // that share the processors
    bool any_thread = false;       // else only the one that makes it may use it
  };
  // Counts in `counters()`, and so must not outlive this.
  std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options);

 private:
  ShardTable shards_;
  RecordLayout layout_;
  std::vector<FileIdentity> identities_;
  int64_t alignment_;
  ReadOptions options_;
  std::vector<bool> is_view_;
  FileCache files_;
  ReaderCounters counters_;
};

}  // namespace s3io
