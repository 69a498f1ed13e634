#include "reader/batch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/align.h"
#include "base/counter.h"

namespace s3io {

int64_t Batch::copy_out(bool is_for_others) {
  // Keep the position within a cache line, and with it the alignment of every element.
  std::byte* aligned = view.begin - (reinterpret_cast<uintptr_t>(view.begin) % kFieldAlignment);
  const int64_t bytes = view.end - aligned;
  AlignedBuf copy = is_for_others ? AlignedBuf::allocate_shared(bytes, kFieldAlignment)
                                  : AlignedBuf::allocate(bytes, kFieldAlignment);
  std::memcpy(copy.data(), aligned, static_cast<size_t>(bytes));
  const std::ptrdiff_t shift = copy.data() - aligned;
  view.begin += shift;
  view.end += shift;
  for (TensorView& tensor : view.tensors) tensor.data += shift;
  buffer = std::move(copy);  // the old buffer goes back to its pool
  return bytes;
}

int64_t PendingBatch::place() {
  error_.reset();
  try {
    const int64_t bytes = work_->place(records_);
    runs_ = work_->runs();
    order_ = work_->order();
    next_read_ = 0;
    return bytes;
  } catch (const Error& error) {
    error_ = error;
    return 0;
  }
}

void PendingBatch::open_soon() {
  if (error_) return;
  size_t count = 0;
  list_wave(next_read_, count);
  source_.open_soon(std::span(wanted_).first(count));
}

bool PendingBatch::start(AlignedBuf buffer, int buffer_index, void* owner, RangeReader& reader) {
  buffer_ = std::move(buffer);
  reads_left_ = 0;
  num_objects_ = 0;
  late_objects_ = 0;
  if (error_) return false;
  try {
    prepare_reads(buffer_index, owner);
  } catch (const Error& error) {
    error_ = error;  // no read was pushed
  }
  if (!error_) push_waves(reader);
  return is_reading();
}

void PendingBatch::prepare_reads(int buffer_index, void* owner) {
  reads_.clear();
  // Batches may differ in how many reads they have: with so much room few of them need more.
  if (reads_.capacity() < order_.size()) reads_.reserve(2 * order_.size());
  std::byte* landing = work_->land_in(buffer_.bytes());
  for (size_t index = 0; index < order_.size(); ++index) {
    const Run& run = run_of(index);
    reads_.push_back({.offset = run.offset,
                      .length = run.length,
                      .data = landing + run.position,
                      .buffer_index = buffer_index,
                      .owner = owner,
                      .has_checksums = run.has_checksums});
  }
  num_objects_ = std::min(count_objects(), source_.max_open_objects());
}

int64_t PendingBatch::count_objects() const {
  int64_t objects = 0;
  int64_t object = -1;
  for (size_t index = 0; index < reads_.size(); ++index) {
    objects += std::exchange(object, run_of(index).object) != run_of(index).object;
  }
  return objects;
}

// Until there is something to wait for.
void PendingBatch::push_waves(RangeReader& reader) {
  while (!error_ && !is_reading() && next_read_ < reads_.size()) {
    push_wave(reader);
    if (!is_reading()) end_wave();
  }
}

// Opens the next objects, and pushes all reads from them.
void PendingBatch::push_wave(RangeReader& reader) {
  const size_t first = next_read_;
  try {
    next_read_ = open_wave();
  } catch (const Error& error) {
    error_ = error;
    objects_.clear();  // none of this wave's reads was pushed
    return;
  }
  for (size_t index = first; index < next_read_; ++index) {
    RangeRead& read = reads_[index];
    if (read.length == 0 && !read.object->is_checked_by_reads()) continue;
    reader.push(read);
    ++reads_left_;
  }
  if (late_objects_ > 0 && !has_opened_all()) open_soon();
}

// The objects of the reads from `first` on, as many as may be open. Gives the read after them.
size_t PendingBatch::list_wave(size_t first, size_t& count) {
  const auto most = static_cast<size_t>(source_.max_open_objects());
  size_t last = first;
  int64_t object = -1;
  for (; last < order_.size(); ++last) {
    const int64_t wanted = run_of(last).object;
    if (wanted == object) continue;
    if (count == most) break;
    if (count == wanted_.size()) wanted_.emplace_back();
    source_.describe(wanted, wanted_[count++]);
    object = wanted;
  }
  return last;
}

// Gives the first read of the wave after it.
size_t PendingBatch::open_wave() {
  size_t count = 0;
  const size_t last = list_wave(next_read_, count);
  late_objects_ += source_.open_all(std::span(wanted_).first(count), objects_);
  size_t opened = 0;
  for (size_t index = next_read_; index < last; ++index) {
    const bool is_next = index > next_read_ && run_of(index).object != run_of(index - 1).object;
    opened += is_next ? 1 : 0;
    reads_[index].object = objects_[opened].get();
    check_bounds(reads_[index]);
  }
  return last;
}

void PendingBatch::end_wave() {
  try {
    for (size_t index = 0; !error_ && index < objects_.size(); ++index) {
      objects_[index]->check_unchanged();
    }
  } catch (const Error& error) {
    error_ = error;
  }
  objects_.clear();
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

bool PendingBatch::take_back(const RangeRead& read, RangeReader& reader) {
  if (read.error && !error_) error_ = read.error;
  if (--reads_left_ > 0) return false;
  end_wave();
  push_waves(reader);
  return !is_reading();
}

void PendingBatch::finish() {
  if (error_) return;
  try {
    work_->finish(view_);
  } catch (const Error& error) {
    error_ = error;
    return;
  }
  ReaderCounters& counters = source_.counters();
  add(counters.copied_bytes, view_.copied_bytes);
  add(counters.converted_bytes, view_.converted_bytes);
  add(counters.finished_batches, 1);
}

void PendingBatch::deliver(Batch& out) {
  if (error_) {
    buffer_ = AlignedBuf();
    throw Error(*error_);
  }
  add(source_.counters().batches, 1);
  add(source_.counters().batch_bytes, view_.record_bytes);
  std::swap(out.view, view_);  // both keep their memory
  out.buffer = std::move(buffer_);
}

bool PendingBatch::has_reads_in_flight() const {
  return std::any_of(reads_.begin(), reads_.end(),
                     [](const RangeRead& read) { return read.parts_in_flight > 0; });
}

void PendingBatch::quarantine() {
  if (!buffer_.valid()) return;
  buffer_.detach();  // nobody will free it
  for (const std::shared_ptr<Object>& object : objects_) object->keep_open();
  add(source_.counters().quarantined_buffers, 1);
}

}  // namespace s3io
