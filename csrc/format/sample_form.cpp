#include "format/sample_form.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "format/column.h"
#include "format/sample_work.h"

namespace s3io {
namespace {

void check_shape(const TableField& field) {
  constexpr int64_t kMost = int64_t{1} << 30;  // bytes of one value
  int64_t left = kMost / size_bytes(field.type);
  for (const int64_t extent : field.shape) {
    if (extent < 1 || extent > left) {
      throw Error(ErrorKind::config, message("field ", field.name, " has a shape that cannot be"));
    }
    left /= extent;
  }
}

bool are_firsts(const SampleTable& table) {
  const uint64_t* first = table.first_samples;
  return first == nullptr || (*first == 0 && std::is_sorted(first, first + table.num_objects));
}

}  // namespace

int64_t RaggedField::open_axes() const { return std::count(shape.begin(), shape.end(), -1); }

bool SampleForm::Layout::changes_in_place() const {
  return realigns || std::ranges::any_of(ragged, &RaggedField::swap_bytes);
}

int64_t TableField::bytes() const {
  int64_t bytes = size_bytes(type);
  for (const int64_t extent : shape) bytes *= extent;
  return bytes;
}

SampleForm::SampleForm(Layout layout, std::vector<SampleTable> tables,
                       std::shared_ptr<const ObjectNames> names, const Options& options)
    : layout_(std::move(layout)),
      tables_(std::move(tables)),
      objects_(std::move(names)),
      options_(options) {
  constexpr int64_t kMostSample = int64_t{1} << 46;
  constexpr size_t kMostPieces = 4096;
  options_.alignment = checked_alignment(options.alignment);
  if (!layout_.record.fields.empty()) layout_.record.validate();
  if (layout_.record.record_bytes < 0 ||
      layout_.largest_sample_bytes < layout_.record.record_bytes ||
      layout_.largest_sample_bytes > kMostSample) {
    throw Error(ErrorKind::config, "samples of this size cannot be");
  }
  for (const Field& field : layout_.record.fields) names_.push_back(field.name);
  for (const TableField& field : layout_.in_table) {
    check_shape(field);
    names_.push_back(field.name);
  }
  start_alignments_.push_back(1);
  for (const RaggedField& field : layout_.ragged) {
    names_.push_back(field.name);
    open_axes_.push_back(field.open_axes());
    if (field.piece > kMostPieces) throw Error(ErrorKind::config, "a sample has too many pieces");
    if (field.piece >= start_alignments_.size()) start_alignments_.resize(field.piece + 1, 1);
    uint64_t& alignment = start_alignments_[field.piece];
    alignment = std::max(alignment, static_cast<uint64_t>(element_alignment(field.type)));
  }
  check_tables();
}

void SampleForm::check_tables() {
  first_.push_back(0);
  int64_t objects = 0;
  for (const SampleTable& table : tables_) {
    int64_t next = 0;
    const bool is_one_each = table.num_objects == 1 || table.num_objects == table.num_samples;
    if (table.num_samples < 0 || table.num_objects < 1 || table.ends == nullptr ||
        (table.first_samples == nullptr && !is_one_each) || !are_firsts(table) ||
        table.starts.size() != start_alignments_.size() ||
        table.lengths.size() != layout_.ragged.size() ||
        table.values.size() != layout_.in_table.size() ||
        (table.crc32c != nullptr && start_alignments_.size() > 1) ||
        __builtin_add_overflow(first_.back(), table.num_samples, &next)) {
      throw Error(ErrorKind::config, "a table of samples does not fit their fields");
    }
    first_.push_back(next);
    first_objects_.push_back(objects);
    objects += table.num_objects;
  }
  if (objects != objects_->count()) {
    throw Error(ErrorKind::config, message("the tables are of ", objects,
                                           " objects, but there are ", objects_->count()));
  }
}

SampleForm::Place SampleForm::place_of(int64_t record, size_t near) const {
  size_t table = near;
  if (record < first_[table] || record >= first_[table + 1]) {
    const auto above = std::upper_bound(first_.begin(), first_.end(), record);
    table = static_cast<size_t>(above - first_.begin()) - 1;
  }
  const SampleTable& one = tables_[table];
  const int64_t sample = record - first_[table];
  int64_t object = one.num_objects == 1 ? 0 : sample;
  if (one.first_samples != nullptr) {
    const uint64_t* end = one.first_samples + one.num_objects;
    const uint64_t* above = std::upper_bound(one.first_samples, end, static_cast<uint64_t>(sample));
    object = std::max<int64_t>(above - one.first_samples - 1, 0);
  }
  return {table, sample, first_objects_[table] + object};
}

void SampleForm::touch_tables(std::span<const Place> places) const {
  for (size_t piece = 0; piece < num_pieces(); ++piece) {
    for (const Place& place : places) {
      const uint64_t* starts = tables_[place.table].starts[piece];
      if (starts != nullptr) touch(starts + place.sample);
    }
  }
  for (size_t field = 0; field < open_axes_.size(); ++field) {
    if (open_axes_[field] == 0) continue;
    for (const Place& place : places) {
      const SampleTable& table = tables_[place.table];
      const int64_t index = place.sample * open_axes_[field];
      touch(static_cast<const std::byte*>(table.lengths[field]) +
            index * (table.has_wide_lengths ? 8 : 4));
    }
  }
  for (const Place& place : places) {
    const SampleTable& table = tables_[place.table];
    if (table.num_objects > 1) touch(table.ends + (place.object - first_objects_[place.table]));
  }
}

int64_t SampleForm::number_in_object(const Place& place) const {
  const SampleTable& table = tables_[place.table];
  if (table.first_samples == nullptr) return table.num_objects == 1 ? place.sample : 0;
  const uint64_t first = table.first_samples[place.object - first_objects_[place.table]];
  return place.sample - static_cast<int64_t>(first);
}

int64_t SampleForm::length_of(const Place& place, size_t field, int64_t axis) const {
  const SampleTable& table = tables_[place.table];
  const auto index = static_cast<size_t>(place.sample * open_axes_[field] + axis);
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

Extent SampleForm::extent_of(const Place& place, size_t piece, std::span<int64_t> elements) const {
  const SampleTable& table = tables_[place.table];
  const uint64_t* starts = table.starts[piece];
  const uint64_t start = starts == nullptr ? 0 : starts[place.sample];
  int64_t bytes = piece == 0 ? layout_.record.record_bytes : 0;
  for (size_t field = 0; field < layout_.ragged.size(); ++field) {
    if (layout_.ragged[field].piece != piece) continue;
    const ScalarType type = layout_.ragged[field].type;
    elements[field] = elements_of(place, field);
    bytes = align_up(bytes, element_alignment(type)) + elements[field] * size_bytes(type);
    if (bytes > layout_.largest_sample_bytes) {
      throw_damaged(place, message("it has more than ", layout_.largest_sample_bytes, " bytes"));
    }
  }
  const uint64_t end = table.ends[place.object - first_objects_[place.table]];
  const auto length = static_cast<uint64_t>(bytes);
  const bool is_within = end <= INT64_MAX && end >= length && start <= end - length;
  const bool is_aligned = layout_.realigns || start % start_alignments_[piece] == 0;
  if (!is_within || !is_aligned) {
    throw_damaged(place, message("it has ", bytes, " bytes at byte ", start));
  }
  return {place.object, static_cast<int64_t>(start), bytes};
}

void SampleForm::throw_damaged(const Place& place, const std::string& what) const {
  throw Error(ErrorKind::data,
              message((*objects_)[place.object], ": the table is wrong about sample ",
                      number_in_object(place), ": ", what,
                      "; write the data set anew, or restore the file; where an index says where "
                      "samples are, python -m torch_s3io index PATH makes a damaged one anew"));
}

void SampleForm::throw_changed(const Place& place, const Extent& extent) const {
  throw Error(ErrorKind::data,
              message((*objects_)[place.object], ": sample ", number_in_object(place), ", ",
                      extent.length, " bytes at byte ", extent.offset,
                      ", is not what was written: its checksum is another one. Restore the file, "
                      "or write the data set anew"));
}

void SampleForm::locate(std::span<const int64_t> records, std::vector<Extent>& out) const {
  size_t near = 0;
  std::vector<int64_t> elements(layout_.ragged.size());
  for (const int64_t record : records) {
    const Place place = place_of(record, near);
    near = place.table;
    for (size_t piece = 0; piece < num_pieces(); ++piece) {
      out.push_back(extent_of(place, piece, elements));
    }
    check_size(place, std::span(out).last(num_pieces()));
  }
}

void SampleForm::check_size(const Place& place, std::span<const Extent> pieces) const {
  int64_t bytes = 0;
  for (const Extent& piece : pieces) bytes += piece.length;
  if (bytes <= layout_.largest_sample_bytes) return;
  throw_damaged(place, message("it has more than ", layout_.largest_sample_bytes, " bytes"));
}

int64_t SampleForm::fixed_bytes(int64_t count) const {
  int64_t bytes = options_.with_record_numbers ? align_up(count * 8, kFieldAlignment) : 0;
  for (const Field& field : layout_.record.fields) {
    bytes += align_up(output_bytes(field, 1) * count, kFieldAlignment);
  }
  for (const TableField& field : layout_.in_table) {
    bytes += align_up(field.bytes() * count, kFieldAlignment);
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
  const int64_t each = layout_.largest_sample_bytes +
                       static_cast<int64_t>(num_pieces()) * (2 * run_alignment() + kMostGap);
  if (count < 0 || count > kMost / each) {
    throw Error(ErrorKind::config,
                message("a batch of ", count, " samples of up to ", layout_.largest_sample_bytes,
                        " bytes is too large; lower batch_size"));
  }
  return fixed_bytes(count) + count * each;
}

std::unique_ptr<BatchWork> SampleForm::make_work() const { return std::make_unique<Work>(*this); }

}  // namespace s3io
