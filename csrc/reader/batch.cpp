#include "reader/batch.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "base/align.h"
#include "base/counter.h"

namespace s3io {
int64_t Batch::copy_out() {
  // Keep the position within a cache line, and with it the alignment of every element.
  std::byte* aligned = begin - (reinterpret_cast<uintptr_t>(begin) % kFieldAlignment);
  const int64_t bytes = end - aligned;
  AlignedBuf copy = AlignedBuf::allocate(bytes, kFieldAlignment);
  std::memcpy(copy.data(), aligned, static_cast<size_t>(bytes));
  const std::ptrdiff_t shift = copy.data() - aligned;
  begin += shift;
  end += shift;
  for (FieldRows& field : fields) field.data += shift;
  if (record_numbers != nullptr) record_numbers += shift;
  buffer = std::move(copy);  // the old buffer goes back to its pool
  return bytes;
}

bool PendingBatch::start(AlignedBuf buffer, int buffer_index, void* owner, RangeReader& reader) {
  buffer_ = std::move(buffer);
  error_.reset();
  reads_left_ = 0;
  const auto count = static_cast<int64_t>(records_.size());
  batch_.count = count;
  batch_.fields.resize(source_.layout().fields.size());
  batch_.record_numbers = nullptr;
  int64_t used = 0;
  if (source_.options().with_record_numbers) {
    std::ranges::copy(std::as_bytes(std::span(records_)), buffer_.data());
    batch_.record_numbers = buffer_.data();
    used = align_up(count * 8, kFieldAlignment);
  }
  for (size_t index = 0; index < batch_.fields.size(); ++index) {
    if (source_.is_view(index)) continue;
    const Field& field = source_.layout().fields[index];
    const int64_t bytes = output_bytes(field, count);
    batch_.fields[index] = {buffer_.data() + used, count > 0 ? bytes / count : 0};
    used += align_up(bytes, kFieldAlignment);
  }
  landing_ = buffer_.data() + align_up(used, std::max(source_.alignment(), kFieldAlignment));
  try {
    prepare_reads(buffer_index, owner);
  } catch (const Error& error) {
    error_ = error;  // no read was pushed
  }
  if (!error_) push_wave(reader);
  return is_reading();
}

void PendingBatch::prepare_reads(int buffer_index, void* owner) {
  reads_.clear();
  next_read_ = 0;
  num_files_ = 0;
  if (records_.empty()) {
    placement_ = {};
    return;
  }
  place_records(records_, source_.shards(), source_.layout(), source_.alignment(), placement_);
  if (source_.alignment() == 1) align_with_page_cache();
  for (const uint32_t index : placement_.by_file) {
    const Run& run = placement_.runs[index];
    reads_.push_back({.offset = run.file_offset,
                      .length = run.length,
                      .data = landing_ + run.position,
                      .buffer_index = buffer_index,
                      .owner = owner});
  }
  num_files_ = std::min(count_files(), source_.max_open_files());
}

int64_t PendingBatch::count_files() const {
  int64_t files = 0;
  int64_t shard = -1;
  for (const uint32_t index : placement_.by_file) {
    files += std::exchange(shard, placement_.runs[index].shard) != placement_.runs[index].shard;
  }
  return files;
}

// Opens the next files, as many as may be open, and pushes all reads from them.
void PendingBatch::push_wave(RangeReader& reader) {
  const size_t first = next_read_;
  size_t last = first;
  int64_t shard = -1;
  try {
    for (; last < reads_.size(); ++last) {
      const Run& run = placement_.runs[placement_.by_file[last]];
      if (run.shard != shard) {
        if (static_cast<int64_t>(files_.size()) == source_.max_open_files()) break;
        files_.push_back(source_.open(run.shard));
        shard = run.shard;
      }
      reads_[last].object = files_.back().get();
      check_bounds(reads_[last]);
    }
  } catch (const Error& error) {
    error_ = error;
    files_.clear();  // none of this wave's reads was pushed
    return;
  }
  for (size_t index = first; index < last; ++index) reader.push(reads_[index]);
  next_read_ = last;
  reads_left_ = last - first;
}

void PendingBatch::end_wave() {
  try {
    for (size_t index = 0; !error_ && index < files_.size(); ++index) {
      files_[index]->check_unchanged();
    }
  } catch (const Error& error) {
    error_ = error;
  }
  files_.clear();
}

// The last line of defence: what the device writes, whole blocks included, lies in the buffer.
void PendingBatch::check_bounds(const RangeRead& read) const {
  const int64_t block_bytes = read.object->block_bytes();
  const int64_t head = read.offset & (block_bytes - 1);
  const int64_t begin = (read.data - buffer_.data()) - head;
  if (begin >= 0 && begin + align_up(head + read.length, block_bytes) <= buffer_.size()) return;
  throw Error(ErrorKind::config,
              message(read.object->path(), ": bytes ", read.offset, " to ",
                      read.offset + read.length, " do not fit into the buffer; this is a bug"));
}

// Copying out of the page cache is up to a third faster between addresses that agree modulo a cache
// line: shifts the landing zone there, if the buffer has the room and the views stay possible.
void PendingBatch::align_with_page_cache() {
  const int64_t shift = placement_.runs.front().file_offset % kCacheLineBytes;
  const Run& last = placement_.runs.back();
  const std::byte* end = landing_ + shift + last.position + last.length;
  if (end > buffer_.data() + buffer_.size()) return;
  for (size_t index = 0; index < batch_.fields.size(); ++index) {
    const Field& field = source_.layout().fields[index];
    if (source_.is_view(index) && shift % size_bytes(field.type) != 0) return;
  }
  landing_ += shift;
}

bool PendingBatch::take_back(const RangeRead& read, RangeReader& reader) {
  if (read.error && !error_) error_ = read.error;
  if (--reads_left_ > 0) return false;
  end_wave();
  if (!error_ && next_read_ < reads_.size()) push_wave(reader);
  return !is_reading();
}

void PendingBatch::finish() {
  if (error_) return;
  ReaderCounters& counters = source_.counters();
  if (placement_.packs) {
    add(counters.copied_bytes, pack_rows(placement_, source_.layout(), landing_));
  }
  convert_fields();
  add(counters.finished_batches, 1);
}

void PendingBatch::convert_fields() {
  const RecordLayout& layout = source_.layout();
  std::byte* rows = landing_ + placement_.first_row;
  std::byte* begin = buffer_.data();
  bool has_aux = batch_.record_numbers != nullptr;
  bool has_views = false;
  for (size_t index = 0; index < layout.fields.size(); ++index) {
    const Field& field = layout.fields[index];
    if (source_.is_view(index)) {
      batch_.fields[index] = {rows + field.offset, placement_.row_stride};
      has_views = true;
      continue;
    }
    std::byte* out = batch_.fields[index].data;
    copy_field(field, rows, placement_.row_stride, batch_.count, out);
    const int64_t bytes = output_bytes(field, batch_.count);
    add(source_.counters().copied_bytes, bytes);
    add(source_.counters().converted_bytes, bytes);
    has_aux = true;
  }
  // The storage of the tensors spans what they need and no more: others copy whole storages.
  if (!has_aux) begin = rows;
  const bool spans_rows = has_views && batch_.count > 0;
  batch_.begin = begin;
  batch_.end = spans_rows ? rows + (batch_.count - 1) * placement_.row_stride + layout.record_bytes
                          : std::max(begin, landing_);
}

void PendingBatch::deliver(Batch& out) {
  if (error_) {
    buffer_ = AlignedBuf();
    throw Error(*error_);
  }
  add(source_.counters().batches, 1);
  add(source_.counters().batch_bytes, batch_.count * source_.layout().record_bytes);
  out.count = batch_.count;
  out.begin = batch_.begin;
  out.end = batch_.end;
  out.fields.assign(batch_.fields.begin(), batch_.fields.end());
  out.record_numbers = batch_.record_numbers;
  out.buffer = std::move(buffer_);
}

bool PendingBatch::has_reads_in_flight() const {
  return std::any_of(reads_.begin(), reads_.end(),
                     [](const RangeRead& read) { return read.parts_in_flight > 0; });
}

void PendingBatch::quarantine() {
  if (!buffer_.valid()) return;
  buffer_.detach();  // nobody will free it
  for (const std::shared_ptr<DirectFile>& file : files_) file->keep_open();
  add(source_.counters().quarantined_buffers, 1);
}

}  // namespace s3io
