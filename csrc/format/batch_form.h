// What the records of a data set are: where their bytes lie in its objects, where those land in a
// batch's buffer, and what tensors they become. No I/O. FixedForm is one: records of one size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/align.h"
#include "format/extent.h"
#include "format/scalar_type.h"

namespace s3io {

// Tensors of a batch begin at multiples of it.
inline constexpr int64_t kFieldAlignment = kCacheLineBytes;

struct TensorView {
  ScalarType type = ScalarType::uint8;
  std::byte* data = nullptr;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // in elements
};

// A ragged one: of the batch's tensors, from `first` on, values, int64 [count] of starts and of
// lengths in elements of these, and perhaps int64 [count, axes] of shapes.
struct RaggedView {
  size_t first = 0;
  bool has_shapes = false;
  int64_t min_length = 0;
  int64_t max_length = 0;
  bool is_packed = false;  // one sample after the other, and values have nothing else
};

// A batch as views into its buffer: every address lies in [begin, end).
struct BatchView {
  int64_t count = 0;            // records
  int64_t record_bytes = 0;     // of all of them, as they lie in the objects
  int64_t copied_bytes = 0;     // packed or converted on the way from where they landed
  int64_t converted_bytes = 0;  // of those
  std::byte* begin = nullptr;
  std::byte* end = nullptr;
  std::vector<TensorView> tensors;  // as `BatchForm::names`, then int64 [count] of record numbers
                                    // where these are asked for
  std::vector<RaggedView> ragged;   // the last ones of the names
};

// One batch on its way, and then the next one: so that the steady state allocates nothing.
class BatchWork {
 public:
  BatchWork() = default;
  BatchWork(const BatchWork&) = delete;
  BatchWork& operator=(const BatchWork&) = delete;
  virtual ~BatchWork() = default;

  // Places records, which must exist, in any order, perhaps none. Returns the bytes of a buffer
  // that they need. Throws Error(data) where the data set's own tables are wrong.
  virtual int64_t place(std::span<const int64_t> records) = 0;
  // What is to be read, and in which order: indices of `runs` by objects and offsets.
  virtual std::span<const Run> runs() const = 0;
  virtual std::span<const uint32_t> order() const = 0;
  // Where the landing area begins; `buffer` has at least the bytes that were asked for, and begins
  // at a multiple of the form's alignment and of kFieldAlignment.
  virtual std::byte* land_in(std::span<std::byte> buffer) = 0;
  // After everything has landed: packs and converts what cannot be viewed as it lies.
  virtual void finish(BatchView& out) = 0;
};

// An alignment that views allow: direct reads place a record congruent to its place in the object,
// so that a view needs that to be a multiple of the element size; an alignment of at least that
// size makes it so in memory as well. Throws Error(config) for what is no power of two.
int64_t checked_alignment(int64_t alignment);

// Immutable; any thread.
class BatchForm {
 public:
  struct Options {
    // What the blocks of every object satisfy, a power of two: runs land congruent to it, each in
    // blocks of its own. 1 where reads take nothing but their range.
    int64_t alignment = 1;
    bool with_record_numbers = false;
  };

  BatchForm() = default;
  BatchForm(const BatchForm&) = delete;
  BatchForm& operator=(const BatchForm&) = delete;
  virtual ~BatchForm() = default;

  virtual const Options& options() const = 0;
  virtual int64_t num_records() const = 0;
  // Of tensors; "" alone: the batch is that tensor.
  virtual const std::vector<std::string>& names() const = 0;
  // From the start of one record to the next one's, on average.
  virtual int64_t typical_bytes() const = 0;
  // Where the records' bytes lie, appended in the order of `records`.
  virtual void locate(std::span<const int64_t> records, std::vector<Extent>& out) const = 0;
  // Bytes of a buffer that no batch of so many records exceeds. Throws Error(config) where that is
  // more than any machine has.
  virtual int64_t most_bytes(int64_t count) const = 0;
  // Whether batches differ in size, so that a buffer need not hold the largest: then what does not
  // fit gets memory of its own.
  virtual bool may_exceed_buffers() const { return false; }
  // The form outlives it.
  virtual std::unique_ptr<BatchWork> make_work() const = 0;
};

}  // namespace s3io
