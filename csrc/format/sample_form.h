// Samples of any length, each in one piece of an object: its fixed-size fields, then its ragged
// ones (docs/format.md). The ragged ones are delivered where they landed: as values, starts and
// lengths.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/batch_form.h"
#include "format/record_layout.h"

namespace s3io {

// A field whose samples differ in length.
struct RaggedField {
  std::string name = {};
  ScalarType type = ScalarType::uint8;
  bool swap_bytes = false;          // stored in the other byte order
  std::vector<int64_t> shape = {};  // of one sample; -1: an open axis

  int64_t open_axes() const;
  // Only the first axis is there, and it is open: no shapes are needed.
  bool is_plain() const { return shape.size() == 1; }
};

// Where the samples of one object lie.
struct SampleTable {
  int64_t num_samples = 0;
  int64_t end = 0;  // no sample reaches beyond this byte of the object
  const uint64_t* starts = nullptr;
  // Of each ragged field the lengths of its open axes, [num_samples][open axes]: uint32, or uint64.
  std::vector<const void*> lengths = {};
  bool has_wide_lengths = false;
  const uint32_t* crc32c = nullptr;        // [num_samples]: each is checked; null: none is
  std::shared_ptr<const void> owner = {};  // of this memory
};

class SampleForm final : public BatchForm {
 public:
  // Samples that lie no farther apart are read together: what lies between costs less than a read.
  static constexpr int64_t kMostGap = 4096;

  struct Layout {
    RecordLayout record;  // of the fixed-size fields; none: record_bytes is 0
    std::vector<RaggedField> ragged;
    int64_t largest_sample_bytes = 0;  // no sample may be larger
    int64_t typical_bytes = 0;
  };

  // Tables are not believed: a sample that does not lie within its object is an error of its batch.
  // `paths` of the objects, for those. Throws Error(config).
  SampleForm(Layout layout, std::vector<SampleTable> tables, std::vector<std::string> paths,
             const Options& options);

  const Options& options() const override { return options_; }
  int64_t num_records() const override { return first_.back(); }
  const std::vector<std::string>& names() const override { return names_; }
  int64_t typical_bytes() const override { return layout_.typical_bytes; }
  bool may_exceed_buffers() const override { return true; }
  void locate(std::span<const int64_t> records, std::vector<Extent>& out) const override;
  int64_t most_bytes(int64_t count) const override;
  std::unique_ptr<BatchWork> make_work() const override;
  // Of record numbers, fixed-size fields, starts, lengths and shapes, before the samples.
  int64_t fixed_bytes(int64_t count) const;
  // What is read together lies in blocks of this size that are its own.
  int64_t run_alignment() const { return std::max(options_.alignment, kFieldAlignment); }

 private:
  class Work;

  struct Place {
    size_t object = 0;
    int64_t sample = 0;  // within the object
  };

  Place place_of(int64_t record, size_t near) const;
  int64_t length_of(const Place& place, size_t field, int64_t axis) const;
  // Elements of a ragged field. Throws Error(data) where they are more than a sample can have.
  int64_t elements_of(const Place& place, size_t field) const;
  // Throws Error(data) where it is not within the object.
  Extent extent_of(const Place& place) const;
  [[noreturn]] void throw_damaged(const Place& place, const std::string& what) const;
  [[noreturn]] void throw_changed(const Place& place, const Extent& extent) const;

  Layout layout_;
  std::vector<SampleTable> tables_;
  std::vector<std::string> paths_;
  Options options_;
  std::vector<int64_t> first_;  // sample of each object; the last is the total
  std::vector<std::string> names_;
  uint64_t start_alignment_ = 1;  // of every sample in its object, so that its fields are views
};

}  // namespace s3io
