// One batch: a buffer, and the tensors that view it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "memory/aligned_buf.h"
#include "reader/record_source.h"

namespace s3io {

// A finished batch as the consumer gets it.
struct Batch {
  AlignedBuf buffer;
  BatchView view;

  // Moves the batch to memory of its own, outside of any pool, perhaps for another process. Returns
  // the bytes copied.
  int64_t copy_out(bool is_for_others);
};

// A batch on its way: places its records in a buffer, pushes the reads, and when all of them are
// back packs and converts what cannot be viewed where it landed. Reused from batch to batch, so
// that the steady state allocates nothing.
//
// Reads are pushed in the order of objects and offsets. A batch from more objects than may be open
// at once is read in waves: when the reads of one wave are back its objects are checked and let go,
// and the next wave's are opened. A run of no bytes is an object that is opened and checked alone.
class PendingBatch {
 public:
  explicit PendingBatch(RecordSource& source) : source_(source), work_(source.form().make_work()) {}
  PendingBatch(const PendingBatch&) = delete;
  PendingBatch& operator=(const PendingBatch&) = delete;

  // The record numbers to read; fill in before `place`, and leave alone until `finish`.
  std::vector<int64_t>& records() { return records_; }
  // Returns the bytes of a buffer that the batch needs.
  int64_t place();
  // Tells the store what this batch will open next. It was placed.
  void open_soon();
  // Begins reading into `buffer`, which has as many bytes, and was registered with the reader as
  // `buffer_index` (-1: it was not). False when there is nothing to wait for: no records, or an
  // object that cannot be opened. `owner` comes back with each read.
  bool start(AlignedBuf buffer, int buffer_index, void* owner, RangeReader& reader);
  // Takes back one of this batch's reads, and pushes the next wave after the last of one. True when
  // nothing is left to read.
  bool take_back(const RangeRead& read, RangeReader& reader);
  bool is_reading() const { return reads_left_ > 0; }
  // Objects that it keeps open at once.
  int64_t num_objects() const { return num_objects_; }
  // Objects whose opening is worth to be begun before, of those that it opened.
  size_t late_objects() const { return late_objects_; }
  bool has_opened_all() const { return next_read_ == order_.size(); }
  // After the reader was abandoned: whether the buffer may still be written to.
  bool has_reads_in_flight() const;
  // After the last read: packs, converts. Errors are kept for `deliver`.
  void finish();
  // Hands the batch over, or throws what went wrong with it.
  void deliver(Batch& out);
  // Gives its buffer up for good: the kernel may still write into it.
  void quarantine();

 private:
  void prepare_reads(int buffer_index, void* owner);
  const Run& run_of(size_t read) const { return runs_[order_[read]]; }
  int64_t count_objects() const;
  void push_waves(RangeReader& reader);
  void push_wave(RangeReader& reader);
  size_t open_wave();
  size_t list_wave(size_t first, size_t& count);
  void end_wave();
  void check_bounds(const RangeRead& read) const;

  RecordSource& source_;
  const std::unique_ptr<BatchWork> work_;
  std::vector<int64_t> records_;
  AlignedBuf buffer_;
  std::span<const Run> runs_;  // of the work
  std::span<const uint32_t> order_;
  std::vector<RangeRead> reads_;                  // in the order of objects and offsets
  std::vector<ObjectToOpen> wanted_;              // of a wave, each once; reused
  std::vector<std::shared_ptr<Object>> objects_;  // of this wave: keeps them open
  size_t next_read_ = 0;                          // the first one of the next wave
  size_t reads_left_ = 0;                         // of this wave
  int64_t num_objects_ = 0;
  size_t late_objects_ = 0;
  BatchView view_;
  std::optional<Error> error_;
};

}  // namespace s3io
