// A data set as the reader sees it: objects of a store, what their records are, how to read them.
// Immutable but for its counters; shared by all readers of one process.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/batch_form.h"
#include "format/object_names.h"
#include "memory/buffer_pool.h"
#include "memory/epoch_board.h"
#include "store/store.h"

namespace s3io {

struct ReadOptions {
  int64_t chunk_bytes = int64_t{1} << 20;
  int depth = 16;              // reads in flight
  double read_timeout_s = 60;  // longest wait for one batch
};

struct ReaderCounters {
  ReadCounters reads;
  std::atomic<int64_t> batches{0};              // delivered
  std::atomic<int64_t> batch_bytes{0};          // bytes of records delivered
  std::atomic<int64_t> finished_batches{0};     // ready: delivered, or read ahead
  std::atomic<int64_t> copied_bytes{0};         // packed, converted, or copied out of the pool
  std::atomic<int64_t> converted_bytes{0};      // of those: fields converted or realigned
  std::atomic<int64_t> oversize_batches{0};     // in memory of their own: larger than a buffer
  std::atomic<int64_t> spilled_batches{0};      // copied out because tensors held too many buffers
  std::atomic<int64_t> reader_wait_ns{0};       // the reader waited for a free buffer
  std::atomic<int64_t> consumer_wait_ns{0};     // the training loop waited for data
  std::atomic<int64_t> quarantined_buffers{0};  // lost to reads that never came back
  // What other processes were told of each of these, by the notes of a board (bindings/reader.cpp).
  std::array<std::atomic<int64_t>, EpochBoard::kNotes> published{};
};

// Columns, which somebody may have mapped: a data set may have millions of objects.
struct Objects {
  std::shared_ptr<const ObjectNames> paths;
  std::span<const ObjectVersion> versions;  // as they were when the data set was made
  std::shared_ptr<const void> owner = {};   // of these
};

Objects copied_objects(const std::vector<std::string>& paths, std::vector<ObjectVersion> versions);

class RecordSource {
 public:
  // Throws Error(config).
  RecordSource(std::shared_ptr<Store> store, Objects objects, std::shared_ptr<const BatchForm> form,
               ReadOptions options);

  const BatchForm& form() const { return *form_; }
  const ReadOptions& options() const { return options_; }
  int64_t alignment() const { return form_->options().alignment; }
  ReaderCounters& counters() { return counters_; }

  // Throws Error(config) when buffers of this pool cannot hold a batch of so many records.
  void check_buffers(const BufferPoolConfig& pool, int64_t batch_records) const;
  // Throws Error(config) when buffers of `pool_alignment` are not aligned enough for these objects.
  void check_alignment(int64_t pool_alignment) const;

  // Objects that may be open at once; a batch that needs more by itself opens them all the same.
  int64_t max_open_objects() const { return store_->max_open_objects(); }
  // What the store opens of an object.
  void describe(int64_t object, ObjectToOpen& out) const;
  // Throws Error(file_changed) if an object is not as it was.
  size_t open_all(std::span<const ObjectToOpen> wanted, std::vector<std::shared_ptr<Object>>& out) {
    return store_->open_all(wanted, out);
  }
  void open_soon(std::span<const ObjectToOpen> wanted) { store_->open_soon(wanted); }
  std::shared_ptr<Object> open(int64_t object);
  // With this source's depth and chunks. Counts in `counters()`, and so must not outlive this.
  std::unique_ptr<RangeReader> make_reader(ReaderOptions options);

 private:
  std::shared_ptr<Store> store_;
  Objects objects_;
  std::shared_ptr<const BatchForm> form_;
  ReadOptions options_;
  ReaderCounters counters_;
};

}  // namespace s3io
