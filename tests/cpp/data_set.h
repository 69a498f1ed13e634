// A small data set on disk, with what every batch of it must hold.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "format/fixed_form.h"
#include "memory/buffer_pool.h"
#include "reader/batch.h"
#include "reader/record_source.h"
#include "store/file_objects.h"
#include "testing.h"

namespace s3io::testing {

struct SourceOptions {  // of files; the rest as in ReadOptions
  DirectMode direct = DirectMode::automatic;
  EngineKind engine = EngineKind::automatic;
  int64_t chunk_bytes = ReadOptions().chunk_bytes;
  int depth = ReadOptions().depth;
  double read_timeout_s = ReadOptions().read_timeout_s;
  bool with_record_numbers = false;
  std::shared_ptr<const FaultPlan> faults = nullptr;
};

class DataSet {
 public:
  // Files of `counts` records each; contents, headers and what lies between records are random.
  DataSet(RecordLayout layout, int64_t header_bytes, const std::vector<int64_t>& counts,
          uint64_t seed)
      : layout_(std::move(layout)) {
    for (size_t number = 0; number < counts.size(); ++number) {
      const int64_t count = counts[number];
      const int64_t records_end =
          count == 0 ? 0 : (count - 1) * layout_.record_stride + layout_.record_bytes;
      files_.push_back(random_bytes(header_bytes + records_end, seed + number));
      shards_.push_back({header_bytes, count});
      paths_.push_back(folder_.path(std::to_string(number)));
      write_file(paths_.back(), files_.back());
      for (int64_t index = 0; index < count; ++index) {
        places_.push_back({number, header_bytes + index * layout_.record_stride});
      }
    }
  }

  const std::string& path(size_t shard) const { return paths_[shard]; }
  const RecordLayout& layout() const { return layout_; }
  int64_t num_records() const { return static_cast<int64_t>(places_.size()); }
  std::vector<DirectMode> modes() const { return modes_for(path(0)); }
  void make_files_cold() const {
    for (const std::string& path : paths_) make_cold(path);
  }

  std::shared_ptr<RecordSource> source(const SourceOptions& options) const {
    int64_t alignment = 1;
    for (const std::string& path : paths_) {
      alignment = std::max(alignment, DirectFile(path, options.direct, 0).alignment());
    }
    auto files = std::make_shared<FileObjects>(
        FileObjects::Options{.direct = options.direct,
                             .engine = options.engine,
                             .min_alignment = alignment > 1 ? alignment : 0,
                             .max_alignment = alignment,
                             .faults = options.faults});
    return source_in(std::move(files), alignment, options);
  }

  // The same objects in any store, there under these paths.
  std::shared_ptr<RecordSource> source_in(std::shared_ptr<Store> store, int64_t alignment,
                                          const SourceOptions& options = {}) const {
    return source_in(std::move(store), paths_, alignment, options);
  }
  std::shared_ptr<RecordSource> source_in(std::shared_ptr<Store> store,
                                          const std::vector<std::string>& paths, int64_t alignment,
                                          const SourceOptions& options) const {
    std::vector<ObjectVersion> versions;
    for (const std::string& path : paths) versions.push_back(store->stat(path).version);
    auto form = std::make_shared<FixedForm>(
        ShardTable(shards_), layout_, ObjectNames(paths_),
        BatchForm::Options{.alignment = alignment,
                           .with_record_numbers = options.with_record_numbers});
    return std::make_shared<RecordSource>(
        std::move(store), copied_objects(paths, std::move(versions)), std::move(form),
        ReadOptions{.chunk_bytes = options.chunk_bytes,
                    .depth = options.depth,
                    .read_timeout_s = options.read_timeout_s});
  }
  const Bytes& contents(size_t shard) const { return files_[shard]; }

  // Whether the batch holds exactly these records, every field within its bounds and aligned.
  bool holds(const Batch& batch, const std::vector<int64_t>& records) const {
    const std::byte* buffer_end = batch.buffer.data() + batch.buffer.size();
    return batch.view.begin >= batch.buffer.data() && batch.view.end <= buffer_end &&
           has_rows(batch.view, records);
  }

  // The same, for a batch whose buffer was detached.
  bool has_rows(const BatchView& view, const std::vector<int64_t>& records) const {
    if (view.count != static_cast<int64_t>(records.size())) return false;
    const size_t num_fields = layout_.fields.size();
    if (view.tensors.size() < num_fields) return false;
    for (size_t index = 0; index < num_fields; ++index) {
      if (!has_shape(view.tensors[index], layout_.fields[index], view.count)) return false;
      for (size_t row = 0; row < records.size(); ++row) {
        if (!field_is_right(view, index, row, records[row])) return false;
      }
    }
    return view.tensors.size() == num_fields || has_numbers(view.tensors.back(), records);
  }

 private:
  struct Place {
    size_t shard;
    int64_t offset;
  };

  static bool has_shape(const TensorView& tensor, const Field& field, int64_t count) {
    std::vector<int64_t> sizes{count};
    sizes.insert(sizes.end(), field.shape.begin(), field.shape.end());
    int64_t packed = 1;
    for (size_t axis = sizes.size() - 1; axis > 0; packed *= sizes[axis--]) {
      if (tensor.strides[axis] != packed) return false;
    }
    return tensor.sizes == sizes && tensor.strides.size() == sizes.size();
  }

  static bool has_numbers(const TensorView& tensor, const std::vector<int64_t>& records) {
    return tensor.type == ScalarType::int64 &&
           tensor.sizes == std::vector{static_cast<int64_t>(records.size())} &&
           tensor.strides == std::vector<int64_t>{1} &&
           (records.empty() || std::memcmp(tensor.data, records.data(), records.size() * 8) == 0);
  }

  bool field_is_right(const BatchView& view, size_t index, size_t row, int64_t record) const {
    const Field& field = layout_.fields[index];
    const TensorView& tensor = view.tensors[index];
    const Bytes expected = delivered(field, record);
    const int64_t row_stride = tensor.strides[0] * size_bytes(tensor.type);
    const std::byte* data = tensor.data + static_cast<int64_t>(row) * row_stride;
    if (data < view.begin || data + expected.size() > view.end) return false;
    const auto item = static_cast<uintptr_t>(size_bytes(field.output));
    return tensor.type == field.output && reinterpret_cast<uintptr_t>(data) % item == 0 &&
           equals(data, expected);
  }

  // The record's field as it must be delivered: as stored, swapped, or uint16 as int64.
  Bytes delivered(const Field& field, int64_t record) const {
    const Place& place = places_[static_cast<size_t>(record)];
    const auto begin = files_[place.shard].begin() + place.offset + field.offset;
    Bytes bytes(begin, begin + field.num_elements() * size_bytes(field.type));
    const auto item = static_cast<size_t>(size_bytes(field.type));
    for (size_t element = 0; field.swap_bytes && element < bytes.size(); element += item) {
      std::reverse(bytes.data() + element, bytes.data() + element + item);
    }
    if (field.type == field.output) return bytes;
    REQUIRE(field.type == ScalarType::uint16);
    REQUIRE(field.output == ScalarType::int64);
    Bytes wide(bytes.size() * 4);
    for (size_t element = 0; element < bytes.size() / 2; ++element) {
      wide[element * 8] = bytes[element * 2];
      wide[element * 8 + 1] = bytes[element * 2 + 1];
    }
    return wide;
  }

  TemporaryFolder folder_;
  RecordLayout layout_;
  std::vector<Bytes> files_;
  std::vector<Shard> shards_;
  std::vector<std::string> paths_;
  std::vector<Place> places_;
};

inline RecordLayout bytes_layout(int64_t record_bytes) {
  return {.fields = {{.shape = {record_bytes}}},
          .record_bytes = record_bytes,
          .record_stride = record_bytes};
}

// One of the shapes that users have: plain, structured, converted, windows, gaps.
inline RecordLayout random_layout(std::mt19937_64& random) {
  const auto elements = static_cast<int64_t>(1 + random() % 300);
  const Field label{.name = "label"};
  const Field floats{.name = "floats",
                     .type = ScalarType::float32,
                     .output = ScalarType::float32,
                     .offset = random() % 2 == 0 ? 4 : 1,  // the latter cannot be viewed
                     .shape = {elements}};
  const Field swapped{.name = "swapped",
                      .type = ScalarType::int16,
                      .output = ScalarType::int16,
                      .swap_bytes = true,
                      .shape = {elements}};
  const Field tokens{.type = ScalarType::uint16,
                     .output = random() % 2 == 0 ? ScalarType::uint16 : ScalarType::int64,
                     .shape = {elements}};
  RecordLayout layout =
      bytes_layout(random() % 2 == 0 ? 1 + elements * 10 : 512 * (1 + elements % 4));
  switch (random() % 4) {
    case 0:
      break;
    case 1:
      layout = {.fields = {label, floats}, .record_bytes = 4 + elements * 4};
      break;
    case 2:
      layout = {.fields = {swapped, label}, .record_bytes = elements * 2};
      break;
    default:
      layout = {.fields = {tokens}, .record_bytes = elements * 2};
      break;
  }
  const auto step = static_cast<int64_t>(1 + random() % 1500);
  layout.record_stride = random() % 3 == 0 ? step * 2 : layout.record_bytes;
  return layout;
}

inline std::shared_ptr<BufferPool> make_pool(RecordSource& source, int64_t batch_size,
                                             int64_t capacity) {
  return std::make_shared<BufferPool>(
      BufferPoolConfig{.capacity = capacity, .buffer_size = source.form().most_bytes(batch_size)});
}

// Whether nothing of the pool is in use, by its own count and by taking all of it.
inline bool is_whole(BufferPool& pool) {
  std::vector<AlignedBuf> all;
  while (auto buffer = pool.try_take(1)) all.push_back(std::move(*buffer));
  return static_cast<int64_t>(all.size()) == pool.config().capacity &&
         pool.stats().in_use == pool.config().capacity;
}

}  // namespace s3io::testing
