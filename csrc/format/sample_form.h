// Samples of any length. A sample is one piece of an object, or several: in each lie some of its
// fields, one after the other. The first piece begins with those of fixed size. The ragged ones are
// delivered where they landed: as values, starts and lengths. Other fields are not read at all: the
// table has their values, as labels of files that are named by their folders.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/batch_form.h"
#include "format/object_names.h"
#include "format/record_layout.h"

namespace s3io {

// A field whose samples differ in length.
struct RaggedField {
  std::string name = {};
  ScalarType type = ScalarType::uint8;
  bool swap_bytes = false;          // stored in the other byte order
  std::vector<int64_t> shape = {};  // of one sample; -1: an open axis
  size_t piece = 0;                 // of the sample: that it lies in

  int64_t open_axes() const;
  // Only the first axis is there, and it is open: no shapes are needed.
  bool is_plain() const { return shape.size() == 1; }
};

// A field of fixed size of which the table has the values.
struct TableField {
  std::string name = {};
  ScalarType type = ScalarType::uint8;
  std::vector<int64_t> shape = {};  // of one sample

  int64_t bytes() const;  // of one sample
};

// Where the samples of successive objects lie: many in one object, one in each of many, or many in
// each.
struct SampleTable {
  int64_t num_samples = 0;
  int64_t num_objects = 1;
  // Of each object the first of its samples; null: there is one object, or one sample in each.
  const uint64_t* first_samples = nullptr;
  const uint64_t* ends = nullptr;  // of each object: no sample reaches beyond this byte
  // Of each piece of a sample, [num_samples], from the start of its object; null: there it begins.
  std::vector<const uint64_t*> starts = {};
  // Of each ragged field the lengths of its open axes, [num_samples][open axes]: uint32, or uint64.
  std::vector<const void*> lengths = {};
  bool has_wide_lengths = false;
  std::vector<const std::byte*> values = {};  // of each table field, [num_samples]
  // [num_samples], of samples in one piece: each is checked; null: none is.
  const uint32_t* crc32c = nullptr;
  std::shared_ptr<const void> owner = {};  // of this memory
};

class SampleForm final : public BatchForm {
 public:
  // Samples that lie no farther apart are read together: what lies between costs less than a read.
  static constexpr int64_t kMostGap = 4096;

  struct Layout {
    RecordLayout record = {};  // of the fixed-size fields; none: record_bytes is 0
    std::vector<TableField> in_table = {};
    std::vector<RaggedField> ragged = {};
    int64_t largest_sample_bytes = 0;  // no sample may be larger, its pieces together
    int64_t typical_bytes = 0;
    // Pieces may begin anywhere in their objects: their elements are moved to where they are
    // aligned. Else another start than that is damage.
    bool realigns = false;

    // Whether ragged fields are moved, or their bytes swapped, where they landed.
    bool changes_in_place() const;
  };

  // Tables are not believed: a sample that does not lie within its object is an error of its batch.
  // `names` of the objects, for those. Throws Error(config).
  SampleForm(Layout layout, std::vector<SampleTable> tables,
             std::shared_ptr<const ObjectNames> names, const Options& options);

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
  // Of a sample.
  size_t num_pieces() const { return start_alignments_.size(); }

 private:
  class Work;

  struct Place {
    size_t table = 0;
    int64_t sample = 0;  // within the table
    int64_t object = 0;  // within the data set
  };

  void check_tables();
  Place place_of(int64_t record, size_t near) const;
  // Brings what the tables say of them into the processor's cache, all at once.
  void touch_tables(std::span<const Place> places) const;
  int64_t number_in_object(const Place& place) const;
  int64_t length_of(const Place& place, size_t field, int64_t axis) const;
  // Elements of a ragged field. Throws Error(data) where they are more than a sample can have.
  int64_t elements_of(const Place& place, size_t field) const;
  // Of one piece; and the elements of its ragged fields. Throws Error(data) where it is not within
  // the object.
  Extent extent_of(const Place& place, size_t piece, std::span<int64_t> elements) const;
  // Throws Error(data) where the pieces together are more than a sample may have.
  void check_size(const Place& place, std::span<const Extent> pieces) const;
  [[noreturn]] void throw_damaged(const Place& place, const std::string& what) const;
  [[noreturn]] void throw_changed(const Place& place, const Extent& extent) const;

  Layout layout_;
  std::vector<SampleTable> tables_;
  std::shared_ptr<const ObjectNames> objects_;
  Options options_;
  std::vector<int64_t> first_;          // sample of each table; the last is the total
  std::vector<int64_t> first_objects_;  // of each table
  std::vector<std::string> names_;
  std::vector<int64_t> open_axes_;          // of each ragged field
  std::vector<uint64_t> start_alignments_;  // of each piece: its fields are views
};

}  // namespace s3io
