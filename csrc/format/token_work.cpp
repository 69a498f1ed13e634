#include "format/token_work.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

namespace s3io {
namespace {

void view_numbers(TensorView& tensor, ScalarType type, std::byte* data, int64_t count) {
  tensor.type = type;
  tensor.data = data;
  tensor.sizes.assign(1, count);
  tensor.strides.assign(1, 1);
}

// Batches differ in how many extents they have: with so much room few of them need more.
template <typename Value>
void make_room(std::vector<Value>& values, size_t size) {
  if (values.capacity() < size) values.reserve(2 * size);
}

}  // namespace

int64_t TokenForm::Work::tokens_of(const Extent& extent) const {
  return extent.length / size_bytes(form_.layout_.token.type);
}

int64_t TokenForm::Work::place(std::span<const int64_t> records) {
  records_ = records;
  rows_.clear();
  extents_.clear();
  tokens_ = longest_ = 0;
  shortest_ = records.empty() ? 0 : std::numeric_limits<int64_t>::max();
  for (const int64_t record : records) {
    const size_t first = extents_.size();
    form_.locate(record, pieces_, extents_);
    int64_t tokens = 0;
    for (size_t at = first; at < extents_.size(); ++at) tokens += tokens_of(extents_[at]);
    rows_.push_back({first, tokens});
    tokens_ += tokens;
    longest_ = std::max(longest_, tokens);
    shortest_ = std::min(shortest_, tokens);
  }
  make_room(extents_, extents_.size() + extents_.size() / 2);
  if (form_.layout_.with_documents && tokens_ > std::numeric_limits<int32_t>::max()) {
    throw Error(ErrorKind::config,
                message("a batch of ", tokens_,
                        " tokens: cu_seqlens are 32-bit integers; lower batch_size or window"));
  }
  land();
  const bool is_padded = form_.layout_.records == TokenRecords::padded;
  const int64_t delivered = is_padded ? count() * longest_ : tokens_;
  front_ = form_.front_bytes(count(), delivered, std::ssize(extents_));
  const int64_t landing =
      runs_.empty() ? 0
                    : align_up(runs_.back().position + runs_.back().length, form_.run_alignment());
  return front_ + landing;
}

// In the order of objects and offsets, each run in blocks of its own.
void TokenForm::Work::land() {
  make_room(by_object_, extents_.size());
  make_room(positions_, extents_.size());
  make_room(runs_, extents_.size());
  make_room(order_, extents_.size());
  by_object_.clear();
  for (const Extent& extent : extents_) {
    by_object_.push_back({extent.object, extent.offset, static_cast<uint32_t>(by_object_.size())});
  }
  std::sort(by_object_.begin(), by_object_.end());
  positions_.resize(extents_.size());
  runs_.clear();
  order_.clear();
  const int64_t alignment = form_.run_alignment();
  for (const auto& [object, offset, index] : by_object_) {
    const Extent& extent = extents_[index];
    const bool is_near = !runs_.empty() && runs_.back().object == extent.object &&
                         extent.offset - runs_.back().offset - runs_.back().length <= kMostGap;
    if (!is_near) {
      const int64_t free =
          runs_.empty() ? 0 : align_up(runs_.back().position + runs_.back().length, alignment);
      order_.push_back(static_cast<uint32_t>(runs_.size()));
      runs_.push_back({.object = extent.object,
                       .offset = extent.offset,
                       .position = free + (extent.offset & (alignment - 1))});
    }
    Run& run = runs_.back();
    run.length = std::max(run.length, extent.offset + extent.length - run.offset);
    ++run.rows;
    positions_[index] = run.position + extent.offset - run.offset;
  }
}

std::byte* TokenForm::Work::take(std::byte*& free, int64_t bytes) const {
  return std::exchange(free, free + align_up(bytes, kFieldAlignment));
}

void TokenForm::Work::finish(BatchView& out) {
  const Layout& layout = form_.layout_;
  const Field& token = layout.token;
  const bool is_padded = layout.records == TokenRecords::padded;
  const int64_t columns = layout.records == TokenRecords::windows ? layout.window : longest_;
  const int64_t delivered = is_padded ? count() * longest_ : tokens_;
  out.count = count();
  out.record_bytes = tokens_ * size_bytes(token.type);
  out.copied_bytes = tokens_ * size_bytes(token.output);
  out.converted_bytes = token.type != token.output || token.swap_bytes ? out.copied_bytes : 0;
  const bool is_ragged = layout.with_documents || layout.records == TokenRecords::documents;
  const size_t num_tensors = layout.with_documents ? 5 : is_ragged ? 3 : 1;
  out.tensors.resize(num_tensors + (form_.options_.with_record_numbers ? 1 : 0));
  out.ragged.resize(is_ragged ? 1 : 0);
  std::byte* free = buffer_.data();
  std::byte* values = take(free, delivered * size_bytes(token.output));
  gather(values);
  if (layout.with_documents) {
    write_documents(out, values, free);
  } else if (is_ragged) {
    write_ragged(out, 0, values, free);
  } else {
    TensorView& tensor = out.tensors[0];
    tensor.type = token.output;
    tensor.data = values;
    tensor.sizes.assign({count(), columns});
    tensor.strides.assign({std::max<int64_t>(columns, 1), 1});
  }
  if (form_.options_.with_record_numbers) {
    std::byte* numbers = take(free, count() * 8);
    std::ranges::copy(std::as_bytes(records_), numbers);
    view_numbers(out.tensors.back(), ScalarType::int64, numbers, count());
  }
  out.begin = buffer_.data();
  out.end = free;
}

// One row after the other, each padded to the longest where that is asked for.
void TokenForm::Work::gather(std::byte* out) const {
  const Field& token = form_.layout_.token;
  const bool is_padded = form_.layout_.records == TokenRecords::padded;
  for (size_t row = 0; row < rows_.size(); ++row) {
    for (size_t at = rows_[row].first; at < end_of(row); ++at) {
      const int64_t tokens = tokens_of(extents_[at]);
      copy_elements(token, landing_ + positions_[at], tokens, out);
      out += tokens * size_bytes(token.output);
    }
    if (!is_padded) continue;
    const int64_t left = (longest_ - rows_[row].tokens) * size_bytes(token.output);
    std::memset(out, 0, static_cast<size_t>(left));
    out += left;
  }
}

// Every extent is a part of one document: positions begin anew in each.
void TokenForm::Work::write_documents(BatchView& out, std::byte* values, std::byte*& free) const {
  auto* positions = reinterpret_cast<int64_t*>(take(free, tokens_ * 8));
  auto* ends = reinterpret_cast<int32_t*>(take(free, 4 * (std::ssize(extents_) + 1)));
  view_numbers(out.tensors[0], ScalarType::int64, reinterpret_cast<std::byte*>(positions), tokens_);
  view_numbers(out.tensors[1], ScalarType::int32, reinterpret_cast<std::byte*>(ends),
               std::ssize(extents_) + 1);
  *ends = 0;
  for (const Extent& extent : extents_) {
    const int64_t tokens = tokens_of(extent);
    std::iota(positions, positions + tokens, 0);
    positions += tokens;
    ends[1] = ends[0] + static_cast<int32_t>(tokens);
    ++ends;
  }
  write_ragged(out, 2, values, free);
}

// Of the rows; with documents, of the parts of these.
void TokenForm::Work::write_ragged(BatchView& out, size_t first, std::byte* values,
                                   std::byte*& free) const {
  const bool is_of_parts = form_.layout_.with_documents;
  const size_t size = is_of_parts ? extents_.size() : rows_.size();
  const auto bytes = static_cast<int64_t>(size) * 8;
  auto* starts = reinterpret_cast<int64_t*>(take(free, bytes));
  auto* lengths = reinterpret_cast<int64_t*>(take(free, bytes));
  int64_t end = 0;
  int64_t shortest = size == 0 ? 0 : std::numeric_limits<int64_t>::max();
  int64_t longest = 0;
  for (size_t at = 0; at < size; ++at) {
    starts[at] = end;
    lengths[at] = is_of_parts ? tokens_of(extents_[at]) : rows_[at].tokens;
    end += lengths[at];
    shortest = std::min(shortest, lengths[at]);
    longest = std::max(longest, lengths[at]);
  }
  out.ragged[0] = {.first = first,
                   .has_shapes = false,
                   .min_length = shortest,
                   .max_length = longest,
                   .is_packed = true};
  view_numbers(out.tensors[first], form_.layout_.token.output, values, tokens_);
  view_numbers(out.tensors[first + 1], ScalarType::int64, reinterpret_cast<std::byte*>(starts),
               static_cast<int64_t>(size));
  view_numbers(out.tensors[first + 2], ScalarType::int64, reinterpret_cast<std::byte*>(lengths),
               static_cast<int64_t>(size));
}

}  // namespace s3io
