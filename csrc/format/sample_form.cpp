#include "format/sample_form.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "format/sample_work.h"

namespace s3io {

int64_t RaggedField::open_axes() const { return std::count(shape.begin(), shape.end(), -1); }

SampleForm::SampleForm(Layout layout, std::vector<SampleTable> tables,
                       std::vector<std::string> paths, const Options& options)
    : layout_(std::move(layout)),
      tables_(std::move(tables)),
      paths_(std::move(paths)),
      options_(options) {
  constexpr int64_t kMostSample = int64_t{1} << 46;
  options_.alignment = checked_alignment(options.alignment);
  if (!layout_.record.fields.empty()) layout_.record.validate();
  if (paths_.size() != tables_.size() || layout_.record.record_bytes < 0 ||
      layout_.largest_sample_bytes < layout_.record.record_bytes ||
      layout_.largest_sample_bytes > kMostSample) {
    throw Error(ErrorKind::config, "samples of this size, in these objects, cannot be");
  }
  first_.push_back(0);
  for (const SampleTable& table : tables_) {
    int64_t next = 0;
    if (table.num_samples < 0 || table.lengths.size() != layout_.ragged.size() ||
        __builtin_add_overflow(first_.back(), table.num_samples, &next)) {
      throw Error(ErrorKind::config, "a table of samples does not fit their fields");
    }
    first_.push_back(next);
  }
  for (const Field& field : layout_.record.fields) names_.push_back(field.name);
  for (const RaggedField& field : layout_.ragged) {
    names_.push_back(field.name);
    const auto alignment = static_cast<uint64_t>(element_alignment(field.type));
    start_alignment_ = std::max(start_alignment_, alignment);
  }
}

SampleForm::Place SampleForm::place_of(int64_t record, size_t near) const {
  size_t object = near;
  if (record < first_[object] || record >= first_[object + 1]) {
    const auto above = std::upper_bound(first_.begin(), first_.end(), record);
    object = static_cast<size_t>(above - first_.begin()) - 1;
  }
  return {object, record - first_[object]};
}

int64_t SampleForm::length_of(const Place& place, size_t field, int64_t axis) const {
  const SampleTable& table = tables_[place.object];
  const auto index = static_cast<size_t>(place.sample * layout_.ragged[field].open_axes() + axis);
  const uint64_t length = table.has_wide_lengths
                              ? static_cast<const uint64_t*>(table.lengths[field])[index]
                              : static_cast<const uint32_t*>(table.lengths[field])[index];
  // More than a sample may have is refused by whoever multiplies it.
  return static_cast<int64_t>(std::min<uint64_t>(length, uint64_t{1} << 62));
}

int64_t SampleForm::elements_of(const Place& place, size_t field) const {
  const RaggedField& ragged = layout_.ragged[field];
  const int64_t most = layout_.largest_sample_bytes / size_bytes(ragged.type);
  int64_t elements = 1;
  bool is_too_many = false;  // unless there are none: another axis may have no length
  int64_t open = 0;
  for (const int64_t extent : ragged.shape) {
    const int64_t length = extent >= 0 ? extent : length_of(place, field, open++);
    if (length == 0) return 0;
    is_too_many = is_too_many || elements > most / length;
    if (!is_too_many) elements *= length;
  }
  if (is_too_many) throw_damaged(place, message("field ", ragged.name, " has too many elements"));
  return elements;
}

Extent SampleForm::extent_of(const Place& place) const {
  const SampleTable& table = tables_[place.object];
  const uint64_t start = table.starts[place.sample];
  int64_t bytes = layout_.record.record_bytes;
  for (size_t field = 0; field < layout_.ragged.size(); ++field) {
    const ScalarType type = layout_.ragged[field].type;
    bytes = align_up(bytes, element_alignment(type)) + elements_of(place, field) * size_bytes(type);
    if (bytes > layout_.largest_sample_bytes) {
      throw_damaged(place, message("it has more than ", layout_.largest_sample_bytes, " bytes"));
    }
  }
  const bool is_within = table.end >= bytes && start <= static_cast<uint64_t>(table.end - bytes);
  if (!is_within || start % start_alignment_ != 0) {
    throw_damaged(place, message("it has ", bytes, " bytes at byte ", start));
  }
  return {static_cast<int64_t>(place.object), static_cast<int64_t>(start), bytes};
}

void SampleForm::throw_damaged(const Place& place, const std::string& what) const {
  throw Error(ErrorKind::data,
              message(paths_[place.object], ": the table is wrong about sample ", place.sample,
                      ": ", what, "; write the data set anew, or restore the file"));
}

void SampleForm::throw_changed(const Place& place, const Extent& extent) const {
  throw Error(ErrorKind::data,
              message(paths_[place.object], ": sample ", place.sample, ", ", extent.length,
                      " bytes at byte ", extent.offset,
                      ", is not what was written: its checksum is another one. Restore the file, "
                      "or write the data set anew"));
}

void SampleForm::locate(std::span<const int64_t> records, std::vector<Extent>& out) const {
  size_t near = 0;
  for (const int64_t record : records) {
    const Place place = place_of(record, near);
    near = place.object;
    out.push_back(extent_of(place));
  }
}

int64_t SampleForm::fixed_bytes(int64_t count) const {
  int64_t bytes = options_.with_record_numbers ? align_up(count * 8, kFieldAlignment) : 0;
  for (const Field& field : layout_.record.fields) {
    bytes += align_up(output_bytes(field, 1) * count, kFieldAlignment);
  }
  for (const RaggedField& field : layout_.ragged) {
    bytes += 2 * align_up(count * 8, kFieldAlignment);
    if (field.is_plain()) continue;
    bytes += align_up(count * 8 * static_cast<int64_t>(field.shape.size()), kFieldAlignment);
  }
  return align_up(bytes, run_alignment());
}

int64_t SampleForm::most_bytes(int64_t count) const {
  constexpr int64_t kMost = int64_t{1} << 46;
  const int64_t each = layout_.largest_sample_bytes + 2 * run_alignment() + kMostGap;
  if (count < 0 || count > kMost / each) {
    throw Error(ErrorKind::config,
                message("a batch of ", count, " samples of up to ", layout_.largest_sample_bytes,
                        " bytes is too large; lower batch_size"));
  }
  return fixed_bytes(count) + count * each;
}

std::unique_ptr<BatchWork> SampleForm::make_work() const { return std::make_unique<Work>(*this); }

}  // namespace s3io
