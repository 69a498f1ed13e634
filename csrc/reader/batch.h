// One batch: a buffer, and where in it the rows of each field lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "memory/aligned_buf.h"
#include "reader/record_source.h"

namespace s3io {

struct FieldRows {
  std::byte* data = nullptr;  // the field of row 0
  int64_t row_stride = 0;     // bytes
};

// A finished batch as the consumer gets it. Every address lies in [begin, end) of `buffer`.
struct Batch {
  AlignedBuf buffer;
  int64_t count = 0;
  std::byte* begin = nullptr;
  std::byte* end = nullptr;
  std::vector<FieldRows> fields;              // as in the layout
  const std::byte* record_numbers = nullptr;  // int64 [count], or null

  // Moves the batch to memory of its own, outside of any pool. Returns the bytes copied.
  int64_t copy_out();
};

// A batch on its way: places its records in a buffer, pushes the reads, and when all of them are
// back packs and converts what cannot be viewed where it landed. Reused from batch to batch, so
// that the steady state allocates nothing.
//
// Reads are pushed in the order of files and offsets. A batch from more files than may be open at
// once is read in waves: when the reads of one wave are back its files are checked and let go, and
// the next wave's are opened.
class PendingBatch {
 public:
  explicit PendingBatch(RecordSource& source) : source_(source) {}
  PendingBatch(const PendingBatch&) = delete;
  PendingBatch& operator=(const PendingBatch&) = delete;

  // The record numbers to read; fill in before `start`.
  std::vector<int64_t>& records() { return records_; }
  // Begins reading into `buffer`, which has at least source.batch_bytes(records) bytes and was
  // registered with the reader as `buffer_index` (-1: it was not). False when there is
  // nothing to wait for: no records, or a file that cannot be opened. `owner` comes back with each
  // read.
  bool start(AlignedBuf buffer, int buffer_index, void* owner, RangeReader& reader);
  // Takes back one of this batch's reads, and pushes the next wave after the last of one. True when
  // nothing is left to read.
  bool take_back(const RangeRead& read, RangeReader& reader);
  bool is_reading() const { return reads_left_ > 0; }
  // Files that it keeps open at once.
  int64_t num_files() const { return num_files_; }
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
  int64_t count_files() const;
  void push_wave(RangeReader& reader);
  void end_wave();
  void check_bounds(const RangeRead& read) const;
  void align_with_page_cache();
  void convert_fields();

  RecordSource& source_;
  std::vector<int64_t> records_;
  Placement placement_;
  AlignedBuf buffer_;
  std::byte* landing_ = nullptr;
  std::vector<RangeRead> reads_;                    // in the order of files and offsets
  std::vector<std::shared_ptr<DirectFile>> files_;  // of this wave, each once: keeps them open
  size_t next_read_ = 0;                            // the first one of the next wave
  size_t reads_left_ = 0;                           // of this wave
  int64_t num_files_ = 0;
  Batch batch_;
  std::optional<Error> error_;
};

}  // namespace s3io
