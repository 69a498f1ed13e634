// A data set of samples of any length, with what every batch of it must hold.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "format/sample_form.h"
#include "memory_store.h"
#include "reader/record_source.h"
#include "testing.h"

namespace s3io::testing {

constexpr int64_t kRecordBytes = 12;  // a label, a gap, two floats

// A data set with its samples as plain bytes beside it: the fields are a label (uint8), a box
// (float32 [2]), tokens (uint16 [n]), pixels (uint8 [n, m, 3]) and waves (float64 [n], big-endian).
class Samples {
 public:
  struct How {
    bool in_pieces = false;  // label and box; tokens and waves; pixels: each by itself
    bool in_one_table = false;
  };

  Samples(const std::vector<int64_t>& counts, int64_t most, int64_t alignment, uint64_t seed)
      : Samples(counts, most, alignment, seed, {}) {}
  Samples(const std::vector<int64_t>& counts, int64_t most, int64_t alignment, uint64_t seed,
          const How& how)
      : random_(seed), most_(most), in_pieces_(how.in_pieces) {
    for (const int64_t count : counts) {
      first_.push_back(static_cast<uint64_t>(samples_.size()));
      add_object(count, alignment);
      ends_.push_back(contents_.back().size());
    }
    first_.push_back(static_cast<uint64_t>(samples_.size()));
    const size_t tables = how.in_one_table ? 1 : counts.size();
    for (size_t table = 0; table < tables; ++table) {
      const auto objects = static_cast<int64_t>(how.in_one_table ? counts.size() : 1);
      const uint64_t first = first_[table];
      std::vector<const uint64_t*> starts;
      for (size_t piece = 0; piece < (in_pieces_ ? 3 : 1); ++piece) {
        starts.push_back(starts_[piece].data() + first);
      }
      const uint64_t last = first_[table + static_cast<size_t>(objects)];
      tables_.push_back(
          {.num_samples = static_cast<int64_t>(last - first),
           .num_objects = objects,
           .first_samples = how.in_one_table ? first_.data() : nullptr,
           .ends = ends_.data() + table,
           .starts = starts,
           .lengths = {tokens_.data() + first, pixels_.data() + 2 * first, waves_.data() + first},
           .has_wide_lengths = true});
    }
  }

  std::shared_ptr<MemoryStore> store(const MemoryStore::Options& options) const {
    auto store = std::make_shared<MemoryStore>(options);
    for (size_t object = 0; object < contents_.size(); ++object) {
      store->put(path(object), contents_[object]);
    }
    return store;
  }

  static SampleForm::Layout layout(int64_t largest, bool in_pieces = false) {
    const Field box{.name = "box",
                    .type = ScalarType::float32,
                    .output = ScalarType::float32,
                    .offset = 4,
                    .shape = {2}};
    const size_t one = in_pieces ? 1 : 0;
    const RaggedField tokens{
        .name = "tokens", .type = ScalarType::uint16, .shape = {-1}, .piece = one};
    const RaggedField pixels{.name = "pixels", .shape = {-1, -1, 3}, .piece = 2 * one};
    const RaggedField waves{.name = "waves",
                            .type = ScalarType::float64,
                            .swap_bytes = true,
                            .shape = {-1},
                            .piece = one};
    return {.record = {.fields = {{.name = "label"}, box},
                       .record_bytes = kRecordBytes,
                       .record_stride = kRecordBytes},
            .ragged = {tokens, pixels, waves},
            .largest_sample_bytes = largest,
            .typical_bytes = 100};
  }

  std::shared_ptr<SampleForm> form(const BatchForm::Options& options) const {
    return std::make_shared<SampleForm>(layout(largest_, in_pieces_), tables_,
                                        std::make_shared<ObjectNames>(paths()), options);
  }

  std::shared_ptr<RecordSource> source(std::shared_ptr<Store> store,
                                       const BatchForm::Options& options) const {
    std::vector<ObjectVersion> versions;
    for (const std::string& path : paths()) versions.push_back(store->stat(path).version);
    return std::make_shared<RecordSource>(std::move(store),
                                          copied_objects(paths(), std::move(versions)),
                                          form(options), ReadOptions{});
  }

  int64_t count() const { return static_cast<int64_t>(samples_.size()); }
  int64_t largest() const { return largest_; }
  std::vector<SampleTable>& tables() { return tables_; }
  static std::string path(size_t object) { return "object " + std::to_string(object); }
  std::vector<std::string> paths() const {
    std::vector<std::string> paths;
    for (size_t object = 0; object < contents_.size(); ++object) paths.push_back(path(object));
    return paths;
  }

  bool holds(const BatchView& view, const std::vector<int64_t>& records) const {
    bool right = view.count == static_cast<int64_t>(records.size());
    for (size_t row = 0; right && row < records.size(); ++row) {
      const Sample& sample = samples_[static_cast<size_t>(records[row])];
      right = fixed_is(view, 0, row, 1, sample.record, 0) &&
              fixed_is(view, 1, row, 8, sample.record, 4) &&
              ragged_is(view, 2, row, sample.tokens) && ragged_is(view, 5, row, sample.pixels) &&
              ragged_is(view, 9, row, sample.waves) && shape_is(view.tensors[8], row, sample);
    }
    return right;
  }

 private:
  struct Sample {
    Bytes record, tokens, pixels, waves;  // as they are delivered
    int64_t height = 0, width = 0;
  };

  int64_t any(int64_t most) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(most + 1));
  }

  void add_object(int64_t count, int64_t alignment) {
    Bytes& file = contents_.emplace_back();
    for (int64_t number = 0; number < count; ++number) {
      Sample sample;
      sample.height = any(most_ / 10);
      sample.width = any(5);
      sample.record = random_bytes(kRecordBytes, random_());
      sample.tokens = random_bytes(2 * any(most_), random_());
      sample.pixels = random_bytes(sample.height * sample.width * 3, random_());
      sample.waves = random_bytes(8 * any(most_ / 8), random_());
      const size_t first = begin_piece(file, alignment, 0);
      append(file, sample.record, 1);
      if (in_pieces_) begin_piece(file, alignment, 1);
      append(file, sample.tokens, 2);
      if (!in_pieces_) append(file, sample.pixels, 1);
      append(file, swapped(sample.waves), 8);
      if (in_pieces_) {
        begin_piece(file, alignment, 2);
        append(file, sample.pixels, 1);
      }
      largest_ = std::max(largest_, static_cast<int64_t>(file.size() - first));
      tokens_.push_back(sample.tokens.size() / 2);
      pixels_.push_back(static_cast<uint64_t>(sample.height));
      pixels_.push_back(static_cast<uint64_t>(sample.width));
      waves_.push_back(sample.waves.size() / 8);
      samples_.push_back(std::move(sample));
    }
  }

  // Perhaps far from what is before it.
  size_t begin_piece(Bytes& file, int64_t alignment, size_t piece) {
    file.resize(align(file.size(), alignment));
    if (any(3) == 0) file.resize(file.size() + static_cast<size_t>(alignment * any(300)));
    starts_[piece].push_back(file.size());
    return file.size();
  }

  static size_t align(size_t value, int64_t alignment) {
    return static_cast<size_t>(align_up(static_cast<int64_t>(value), alignment));
  }
  static void append(Bytes& file, const Bytes& bytes, int64_t alignment) {
    file.resize(align(file.size(), alignment));
    file.insert(file.end(), bytes.begin(), bytes.end());
  }
  static Bytes swapped(Bytes bytes) {
    for (size_t begin = 0; begin < bytes.size(); begin += 8) {
      std::reverse(bytes.data() + begin, bytes.data() + begin + 8);
    }
    return bytes;
  }

  static bool within(const BatchView& view, const std::byte* data, size_t bytes) {
    return data >= view.begin && data + bytes <= view.end;
  }

  static bool fixed_is(const BatchView& view, size_t tensor, size_t row, size_t bytes,
                       const Bytes& record, size_t offset) {
    const std::byte* data = view.tensors[tensor].data + row * bytes;
    return within(view, data, bytes) && std::memcmp(data, record.data() + offset, bytes) == 0;
  }

  static int64_t number(const TensorView& tensor, size_t index) {
    int64_t value = 0;
    std::memcpy(&value, tensor.data + 8 * index, 8);
    return value;
  }

  // Values, starts and lengths are three tensors from `tensor` on.
  static bool ragged_is(const BatchView& view, size_t tensor, size_t row, const Bytes& expected) {
    const TensorView& values = view.tensors[tensor];
    const int64_t start = number(view.tensors[tensor + 1], row);
    const int64_t length = number(view.tensors[tensor + 2], row);
    const int64_t element = size_bytes(values.type);
    const std::byte* data = values.data + start * element;
    return start >= 0 && start + length <= values.sizes[0] &&
           length * element == static_cast<int64_t>(expected.size()) &&
           reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element) == 0 &&
           (length == 0 || within(view, data, expected.size())) && equals(data, expected);
  }

  static bool shape_is(const TensorView& shapes, size_t row, const Sample& sample) {
    return number(shapes, 3 * row) == sample.height &&
           number(shapes, 3 * row + 1) == sample.width && number(shapes, 3 * row + 2) == 3;
  }

  std::mt19937_64 random_;
  const int64_t most_;
  const bool in_pieces_;
  std::vector<Bytes> contents_;
  std::vector<uint64_t> first_, ends_;  // of each object
  std::array<std::vector<uint64_t>, 3> starts_;
  std::vector<uint64_t> tokens_, pixels_, waves_;
  std::vector<SampleTable> tables_;
  std::vector<Sample> samples_;
  int64_t largest_ = kRecordBytes;
};

}  // namespace s3io::testing
