#include "format/fixed_form.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

bool is_view_everywhere(const Field& field, const RecordLayout& layout, const ShardTable& shards,
                        int64_t alignment) {
  return std::all_of(shards.shards().begin(), shards.shards().end(), [&](const Shard& shard) {
    return can_view(layout, field, shard.header_bytes % alignment);
  });
}

// Sizes [count, *shape], and the strides of a field that lies in rows so many bytes apart.
void set_rows(TensorView& tensor, const Field& field, std::byte* data, int64_t row_stride,
              int64_t count) {
  tensor.type = field.output;
  tensor.data = data;
  tensor.sizes.assign(field.shape.begin(), field.shape.end());
  tensor.sizes.insert(tensor.sizes.begin(), count);
  tensor.strides.resize(tensor.sizes.size());
  int64_t stride = 1;
  for (size_t dimension = tensor.sizes.size() - 1; dimension > 0; --dimension) {
    tensor.strides[dimension] = stride;
    stride *= std::max<int64_t>(tensor.sizes[dimension], 1);
  }
  tensor.strides[0] = row_stride / size_bytes(field.output);
}

}  // namespace

class FixedForm::Work final : public BatchWork {
 public:
  explicit Work(const FixedForm& form) : form_(form) {}

  int64_t place(std::span<const int64_t> records) override {
    records_ = records;
    if (records.empty()) {
      placement_ = {};
    } else {
      place_records(records, form_.shards_, form_.layout_, form_.options_.alignment, placement_);
    }
    return form_.most_bytes(count());
  }

  std::span<const Run> runs() const override { return placement_.runs; }
  std::span<const uint32_t> order() const override { return placement_.order; }

  // What is converted comes first, then what is read.
  std::byte* land_in(std::span<std::byte> buffer) override {
    buffer_ = buffer;
    landing_ = buffer.data() + form_.aux_bytes(count());
    if (form_.options_.alignment == 1 && !records_.empty()) align_with_page_cache();
    return landing_;
  }

  void finish(BatchView& out) override;

 private:
  int64_t count() const { return static_cast<int64_t>(records_.size()); }
  void align_with_page_cache();
  int64_t write_record_numbers(TensorView& tensor);

  const FixedForm& form_;
  std::span<const int64_t> records_;
  Placement placement_;
  std::span<std::byte> buffer_;
  std::byte* landing_ = nullptr;
};

// Copying out of the page cache is up to a third faster between addresses that agree modulo a cache
// line: shifts the landing area there, if the buffer has the room and the views stay possible.
void FixedForm::Work::align_with_page_cache() {
  const int64_t shift = placement_.runs.front().offset % kCacheLineBytes;
  const Run& last = placement_.runs.back();
  const std::byte* end = landing_ + shift + last.position + last.length;
  if (end > buffer_.data() + buffer_.size()) return;
  for (size_t index = 0; index < form_.layout_.fields.size(); ++index) {
    const Field& field = form_.layout_.fields[index];
    if (form_.is_view_[index] && shift % size_bytes(field.type) != 0) return;
  }
  landing_ += shift;
}

// Returns the bytes that they take at the front of the buffer.
int64_t FixedForm::Work::write_record_numbers(TensorView& tensor) {
  std::ranges::copy(std::as_bytes(records_), buffer_.data());
  tensor.type = ScalarType::int64;
  tensor.data = buffer_.data();
  tensor.sizes.assign(1, count());
  tensor.strides.assign(1, 1);
  return align_up(count() * 8, kFieldAlignment);
}

void FixedForm::Work::finish(BatchView& out) {
  const RecordLayout& layout = form_.layout_;
  const size_t num_fields = layout.fields.size();
  out.count = count();
  out.record_bytes = count() * layout.record_bytes;
  out.copied_bytes = placement_.packs ? pack_rows(placement_, layout, landing_) : 0;
  out.converted_bytes = 0;
  out.tensors.resize(num_fields + (form_.options_.with_record_numbers ? 1 : 0));
  int64_t used = 0;
  if (form_.options_.with_record_numbers) used = write_record_numbers(out.tensors.back());
  std::byte* rows = landing_ + placement_.first_row;
  bool has_views = false;
  bool has_aux = form_.options_.with_record_numbers;
  for (size_t index = 0; index < num_fields; ++index) {
    const Field& field = layout.fields[index];
    if (form_.is_view_[index]) {
      set_rows(out.tensors[index], field, rows + field.offset, placement_.row_stride, count());
      has_views = true;
      continue;
    }
    const int64_t bytes = output_bytes(field, count());
    copy_field(field, rows, placement_.row_stride, count(), buffer_.data() + used);
    set_rows(out.tensors[index], field, buffer_.data() + used, count() > 0 ? bytes / count() : 0,
             count());
    used += align_up(bytes, kFieldAlignment);
    out.converted_bytes += bytes;
    has_aux = true;
  }
  out.copied_bytes += out.converted_bytes;
  // The storage of the tensors spans what they need and no more: others copy whole storages.
  out.begin = has_aux ? buffer_.data() : rows;
  const bool spans_rows = has_views && count() > 0;
  out.end = spans_rows ? rows + (count() - 1) * placement_.row_stride + layout.record_bytes
                       : std::max(out.begin, landing_);
}

FixedForm::FixedForm(ShardTable shards, RecordLayout layout, const ObjectNames& paths,
                     const Options& options)
    : shards_(std::move(shards)), layout_(std::move(layout)), options_(options) {
  options_.alignment = checked_alignment(options.alignment);
  layout_.validate();
  check_offsets(shards_, layout_, paths);
  for (const Field& field : layout_.fields) {
    names_.push_back(field.name);
    is_view_.push_back(is_view_everywhere(field, layout_, shards_, options_.alignment));
  }
}

void FixedForm::locate(std::span<const int64_t> records, std::vector<Extent>& out) const {
  int64_t shard = 0;
  for (const int64_t record : records) {
    const ShardTable::Location location = shards_.locate(record, shard);
    shard = location.shard;
    const int64_t header = shards_.shards()[static_cast<size_t>(shard)].header_bytes;
    out.push_back({shard, header + location.index * layout_.record_stride, layout_.record_bytes});
  }
}

// Of record numbers and converted fields, before what is read.
int64_t FixedForm::aux_bytes(int64_t count) const {
  constexpr int64_t kMost = int64_t{1} << 46;
  int64_t bytes = 0;
  if (options_.with_record_numbers) bytes = align_up(count * 8, kFieldAlignment);
  for (size_t index = 0; index < layout_.fields.size(); ++index) {
    if (is_view_[index]) continue;
    bytes += align_up(output_bytes(layout_.fields[index], count), kFieldAlignment);
    if (bytes > kMost) return kMost;  // fields may overlap, so that their sum has no bound
  }
  return align_up(bytes, std::max(options_.alignment, kFieldAlignment));
}

int64_t FixedForm::most_bytes(int64_t count) const {
  constexpr int64_t kMost = int64_t{1} << 46;
  const int64_t per_record =
      std::max(layout_.record_bytes, layout_.record_stride) + 2 * options_.alignment;
  if (count < 0 || count > kMost / per_record || aux_bytes(count) >= kMost) {
    throw Error(ErrorKind::config,
                message("a batch of ", count, " records of ", layout_.record_bytes,
                        " bytes is too large; lower batch_size"));
  }
  return aux_bytes(count) + (count > 0 ? max_landing_bytes(count, layout_, options_.alignment) : 0);
}

std::unique_ptr<BatchWork> FixedForm::make_work() const { return std::make_unique<Work>(*this); }

}  // namespace s3io
