#include "format/sample_work.h"

#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/crc32c.h"

namespace s3io {
namespace {

void set_vector(TensorView& tensor, ScalarType type, std::byte* data, int64_t count) {
  tensor.type = type;
  tensor.data = data;
  tensor.sizes.assign(1, count);
  tensor.strides.assign(1, 1);
}

void set_packed(TensorView& tensor, ScalarType type, std::byte* data, int64_t count,
                std::span<const int64_t> shape) {
  tensor.type = type;
  tensor.data = data;
  tensor.sizes.assign(1, count);
  tensor.sizes.insert(tensor.sizes.end(), shape.begin(), shape.end());
  tensor.strides.resize(tensor.sizes.size());
  int64_t stride = 1;
  for (size_t axis = tensor.sizes.size(); axis-- > 0;) {
    tensor.strides[axis] = stride;
    stride *= std::max<int64_t>(tensor.sizes[axis], 1);
  }
}

// Both halves of a complex one by itself.
void swap_elements(std::byte* data, int64_t count, ScalarType type) {
  const bool is_complex = type == ScalarType::complex64 || type == ScalarType::complex128;
  const int64_t part = size_bytes(type) / (is_complex ? 2 : 1);
  for (std::byte* end = data + count * size_bytes(type); data < end; data += part) {
    std::reverse(data, data + part);
  }
}

}  // namespace

int64_t SampleForm::Work::place(std::span<const int64_t> records) {
  records_ = records;
  places_.clear();
  pieces_.clear();
  by_object_.clear();
  size_t near = 0;
  for (const int64_t record : records) {
    const Place place = form_.place_of(record, near);
    near = place.table;
    places_.push_back(place);
  }
  form_.touch_tables(places_);
  const size_t num_fields = form_.layout_.ragged.size();
  elements_.resize(places_.size() * num_fields);
  std::span<int64_t> elements = elements_;
  for (const Place& place : places_) {
    extents_.clear();
    for (size_t piece = 0; piece < form_.num_pieces(); ++piece) {
      extents_.push_back(form_.extent_of(place, piece, elements.first(num_fields)));
      by_object_.push_back(static_cast<uint32_t>(pieces_.size()));
      pieces_.push_back({extents_.back()});
    }
    form_.check_size(place, extents_);
    elements = elements.subspan(num_fields);
  }
  const auto before = [&](uint32_t a, uint32_t b) {
    const Extent& left = pieces_[a].extent;
    const Extent& right = pieces_[b].extent;
    return std::pair(left.object, left.offset) < std::pair(right.object, right.offset);
  };
  if (!std::is_sorted(by_object_.begin(), by_object_.end(), before)) {
    std::sort(by_object_.begin(), by_object_.end(), before);
  }
  land();
  return form_.fixed_bytes(count()) + landing_bytes_;
}

// Whether a piece is an object: one that is empty is opened all the same, for it may have changed.
bool SampleForm::Work::is_whole(uint32_t index) const {
  if (form_.num_pieces() > 1) return false;
  const SampleTable& table = form_.tables_[places_[index].table];
  return table.first_samples == nullptr && table.num_objects == table.num_samples &&
         table.starts.front() == nullptr;
}

// An object is of one table: with one of its samples all of them have one.
bool SampleForm::Work::has_checksum(uint32_t index) const {
  return form_.tables_[places_[index / form_.num_pieces()].table].crc32c != nullptr;
}

// Bytes that a piece is moved towards the start of the buffer.
int64_t SampleForm::Work::shift_of(uint32_t index) const {
  const uint64_t alignment = form_.start_alignments_[index % form_.num_pieces()];
  return static_cast<int64_t>(static_cast<uint64_t>(pieces_[index].extent.offset) % alignment);
}

bool SampleForm::Work::is_same_piece(uint32_t index, uint32_t other) const {
  const size_t num_pieces = form_.num_pieces();
  return records_[index / num_pieces] == records_[other / num_pieces] &&
         index % num_pieces == other % num_pieces;
}

// In the order of objects and offsets, each run in blocks of its own.
void SampleForm::Work::land() {
  runs_.clear();
  order_.clear();
  // So that elements are aligned in memory as they are in the object, and copies out of the page
  // cache are fast.
  const int64_t alignment = form_.run_alignment();
  const bool changes_in_place = form_.layout_.changes_in_place();
  int64_t free = 0;
  uint32_t last = 0;  // piece that landed
  for (const uint32_t index : by_object_) {
    Piece& piece = pieces_[index];
    const Extent& extent = piece.extent;
    Run* run = runs_.empty() ? nullptr : &runs_.back();
    const int64_t run_end = run == nullptr ? 0 : run->offset + run->length;
    // One that was read already lies in the run; empty ones lie anywhere.
    const bool is_within = run != nullptr && extent.object == run->object &&
                           extent.offset >= run->offset && extent.offset + extent.length <= run_end;
    // What is changed in place is not a part of something else.
    const bool is_repeated = is_within && (!changes_in_place || is_same_piece(index, last));
    // What is moved needs room between it and what lies before it.
    const int64_t least = form_.layout_.realigns ? kMostElementAlignment : 0;
    const bool follows = run != nullptr && extent.object == run->object &&
                         extent.offset >= run_end + least && extent.offset - run_end <= kMostGap;
    if (extent.length == 0 && !is_repeated && !is_whole(index)) {
      piece.position = 0;
      continue;
    }
    if (!is_repeated && !follows) {
      order_.push_back(static_cast<uint32_t>(runs_.size()));
      runs_.push_back({.object = extent.object,
                       .offset = extent.offset,
                       .position = free + (extent.offset & (alignment - 1)),
                       .has_checksums = has_checksum(index)});
      run = &runs_.back();
    }
    if (!is_repeated) run->length = extent.offset + extent.length - run->offset;
    ++run->rows;
    piece.position = run->position + extent.offset - run->offset - shift_of(index);
    free = align_up(run->position + run->length, alignment);
    last = index;
  }
  landing_bytes_ = free;
}

int64_t* SampleForm::Work::take_numbers(std::byte*& free, int64_t count) const {
  auto* numbers = reinterpret_cast<int64_t*>(free);
  free += align_up(count * 8, kFieldAlignment);
  return numbers;
}

void SampleForm::Work::finish(BatchView& out) {
  out.count = count();
  out.record_bytes = 0;
  for (const Piece& piece : pieces_) out.record_bytes += piece.extent.length;
  out.copied_bytes = 0;
  out.converted_bytes = 0;
  out.ragged.resize(form_.layout_.ragged.size());
  size_t num_tensors = form_.names_.size();
  for (const RaggedField& field : form_.layout_.ragged) num_tensors += field.is_plain() ? 2 : 3;
  out.tensors.resize(num_tensors + (form_.options_.with_record_numbers ? 1 : 0));
  if (form_.layout_.realigns) realign(out);
  check_sums();
  std::byte* free = buffer_.data();
  write_fixed(out, free);
  write_in_table(out, free);
  write_ragged(out, free);
  if (form_.options_.with_record_numbers) {
    int64_t* numbers = take_numbers(free, count());
    std::ranges::copy(records_, numbers);
    set_vector(out.tensors.back(), ScalarType::int64, reinterpret_cast<std::byte*>(numbers),
               count());
  }
  out.begin = buffer_.data();
  out.end = std::max(landing_ + landing_bytes_, out.begin);
}

// Of every piece once, also where it is in the batch more than once.
void SampleForm::Work::realign(BatchView& out) {
  int64_t last = -1;
  for (const uint32_t index : by_object_) {
    const Piece& piece = pieces_[index];
    const int64_t shift = shift_of(index);
    if (piece.extent.length == 0 || shift == 0) continue;
    if (std::exchange(last, piece.position) == piece.position) continue;
    std::byte* to = landing_ + piece.position;
    std::memmove(to, to + shift, static_cast<size_t>(piece.extent.length));
    out.copied_bytes += piece.extent.length;
    out.converted_bytes += piece.extent.length;
  }
}

// Before anything is changed in place.
void SampleForm::Work::check_sums() {
  for (size_t row = 0; row < places_.size(); ++row) {
    const Place& place = places_[row];
    const uint32_t* sums = form_.tables_[place.table].crc32c;
    if (sums == nullptr) continue;
    const Piece& whole = piece_of(row, 0);
    const std::byte* bytes = landing_ + whole.position;
    const uint32_t found = crc32c(0, {bytes, static_cast<size_t>(whole.extent.length)});
    if (found != sums[place.sample]) form_.throw_changed(place, whole.extent);
  }
}

// Gathered from the samples.
void SampleForm::Work::write_fixed(BatchView& out, std::byte*& free) {
  const RecordLayout& record = form_.layout_.record;
  for (size_t index = 0; index < record.fields.size(); ++index) {
    const Field& field = record.fields[index];
    const int64_t bytes = output_bytes(field, 1);
    std::byte* rows = free;
    for (int64_t row = 0; row < count(); ++row) {
      const std::byte* sample = landing_ + piece_of(static_cast<size_t>(row), 0).position;
      copy_field(field, sample, record.record_bytes, 1, rows + row * bytes);
    }
    set_packed(out.tensors[index], field.output, rows, count(), field.shape);
    out.copied_bytes += count() * bytes;
    if (field.swap_bytes) out.converted_bytes += count() * bytes;
    free += align_up(count() * bytes, kFieldAlignment);
  }
}

// Gathered from the tables.
void SampleForm::Work::write_in_table(BatchView& out, std::byte*& free) const {
  const std::vector<TableField>& fields = form_.layout_.in_table;
  for (size_t index = 0; index < fields.size(); ++index) {
    const auto bytes = static_cast<size_t>(fields[index].bytes());
    std::byte* rows = free;
    for (size_t row = 0; row < places_.size(); ++row) {
      const Place& place = places_[row];
      const std::byte* values = form_.tables_[place.table].values[index];
      std::memcpy(rows + row * bytes, values + static_cast<size_t>(place.sample) * bytes, bytes);
    }
    set_packed(out.tensors[form_.layout_.record.fields.size() + index], fields[index].type, rows,
               count(), fields[index].shape);
    free += align_up(static_cast<int64_t>(bytes) * count(), kFieldAlignment);
  }
}

// Of every sample once, also where it is in the batch more than once.
void SampleForm::Work::swap_in_place(size_t index) {
  const RaggedField& field = form_.layout_.ragged[index];
  const size_t num_pieces = form_.num_pieces();
  int64_t last = -1;
  for (const uint32_t number : by_object_) {
    if (number % num_pieces != field.piece) continue;
    const int64_t position = pieces_[number].position;
    const int64_t elements = elements_of(number / num_pieces, index);
    const int64_t begin = ends_[number] - elements * size_bytes(field.type);
    if (elements > 0 && std::exchange(last, position) != position) {
      swap_elements(landing_ + position + begin, elements, field.type);
    }
  }
}

void SampleForm::Work::write_ragged(BatchView& out, std::byte*& free) {
  const std::vector<RaggedField>& fields = form_.layout_.ragged;
  const size_t num_pieces = form_.num_pieces();
  ends_.assign(pieces_.size(), 0);
  for (size_t first = 0; first < ends_.size(); first += num_pieces) {
    ends_[first] = form_.layout_.record.record_bytes;
  }
  size_t tensor = form_.layout_.record.fields.size() + form_.layout_.in_table.size();
  for (size_t index = 0; index < fields.size(); ++index) {
    const RaggedField& field = fields[index];
    const int64_t element_bytes = size_bytes(field.type);
    int64_t* starts = take_numbers(free, count());
    int64_t* lengths = take_numbers(free, count());
    const auto axes = static_cast<int64_t>(field.shape.size());
    int64_t* shapes = field.is_plain() ? nullptr : take_numbers(free, count() * axes);
    int64_t end = 0;  // of all samples, if they are packed
    int64_t shortest = places_.empty() ? 0 : std::numeric_limits<int64_t>::max();
    int64_t longest = 0;
    bool is_packed = true;
    for (size_t row = 0; row < places_.size(); ++row) {
      const Place& place = places_[row];
      const size_t number = row * num_pieces + field.piece;
      const int64_t elements = elements_of(row, index);
      const int64_t begin = align_up(ends_[number], element_alignment(field.type));
      ends_[number] = begin + elements * element_bytes;
      starts[row] = elements == 0 ? 0 : (pieces_[number].position + begin) / element_bytes;
      lengths[row] = elements;
      is_packed = is_packed && starts[row] == end;
      end += elements;
      shortest = std::min(shortest, elements);
      longest = std::max(longest, elements);
      int64_t open = 0;
      for (int64_t axis = 0; shapes != nullptr && axis < axes; ++axis) {
        const int64_t extent = field.shape[static_cast<size_t>(axis)];
        shapes[static_cast<int64_t>(row) * axes + axis] =
            extent >= 0 ? extent : form_.length_of(place, index, open++);
      }
    }
    if (field.swap_bytes) swap_in_place(index);
    out.ragged[index] = {.first = tensor,
                         .has_shapes = shapes != nullptr,
                         .min_length = shortest,
                         .max_length = longest,
                         .is_packed = is_packed && end == landing_bytes_ / element_bytes};
    set_vector(out.tensors[tensor++], field.type, landing_, landing_bytes_ / element_bytes);
    set_vector(out.tensors[tensor++], ScalarType::int64, reinterpret_cast<std::byte*>(starts),
               count());
    set_vector(out.tensors[tensor++], ScalarType::int64, reinterpret_cast<std::byte*>(lengths),
               count());
    if (shapes != nullptr) {
      const std::array<int64_t, 1> row{axes};
      set_packed(out.tensors[tensor++], ScalarType::int64, reinterpret_cast<std::byte*>(shapes),
                 count(), row);
    }
  }
}

}  // namespace s3io
