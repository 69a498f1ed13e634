// Samples of any length: every field of every sample is what was stored, however they lie.
#include "format/sample_form.h"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "data_set.h"
#include "leak_check.h"
#include "memory_store.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "testing.h"

namespace s3io::testing::sample_form_test {

constexpr int64_t kRecordBytes = 12;  // a label, a gap, two floats

// A data set with its samples as plain bytes beside it: the fields are a label (uint8), a box
// (float32 [2]), tokens (uint16 [n]), pixels (uint8 [n, m, 3]) and waves (float64 [n], big-endian).
class Samples {
 public:
  Samples(const std::vector<int64_t>& counts, int64_t most, int64_t alignment, uint64_t seed)
      : random_(seed), most_(most) {
    for (const int64_t count : counts) add_object(count, alignment);
    for (size_t object = 0; object < counts.size(); ++object) {
      tables_.push_back(
          {.num_samples = counts[object],
           .end = static_cast<int64_t>(contents_[object].size()),
           .starts = starts_[object].data(),
           .lengths = {tokens_[object].data(), pixels_[object].data(), waves_[object].data()},
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

  static SampleForm::Layout layout(int64_t largest) {
    const Field box{.name = "box",
                    .type = ScalarType::float32,
                    .output = ScalarType::float32,
                    .offset = 4,
                    .shape = {2}};
    const RaggedField tokens{.name = "tokens", .type = ScalarType::uint16, .shape = {-1}};
    const RaggedField pixels{.name = "pixels", .shape = {-1, -1, 3}};
    const RaggedField waves{
        .name = "waves", .type = ScalarType::float64, .swap_bytes = true, .shape = {-1}};
    return {.record = {.fields = {{.name = "label"}, box},
                       .record_bytes = kRecordBytes,
                       .record_stride = kRecordBytes},
            .ragged = {tokens, pixels, waves},
            .largest_sample_bytes = largest,
            .typical_bytes = 100};
  }

  std::shared_ptr<SampleForm> form(const BatchForm::Options& options) const {
    std::vector<std::string> paths;
    for (size_t object = 0; object < contents_.size(); ++object) paths.push_back(path(object));
    return std::make_shared<SampleForm>(layout(largest_), tables_, paths, options);
  }

  std::shared_ptr<RecordSource> source(std::shared_ptr<Store> store,
                                       const BatchForm::Options& options) const {
    Objects objects;
    for (size_t object = 0; object < contents_.size(); ++object) {
      objects.paths.push_back(path(object));
      objects.versions.push_back(store->stat(path(object)).version);
    }
    return std::make_shared<RecordSource>(std::move(store), std::move(objects), form(options),
                                          ReadOptions{});
  }

  int64_t count() const { return static_cast<int64_t>(samples_.size()); }
  int64_t largest() const { return largest_; }
  std::vector<SampleTable>& tables() { return tables_; }
  static std::string path(size_t object) { return "object " + std::to_string(object); }

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
    const size_t object = contents_.size();
    Bytes& file = contents_.emplace_back();
    for (auto* columns : {&starts_, &tokens_, &pixels_, &waves_}) columns->emplace_back();
    for (int64_t number = 0; number < count; ++number) {
      Sample sample;
      sample.height = any(most_ / 10);
      sample.width = any(5);
      sample.record = random_bytes(kRecordBytes, random_());
      sample.tokens = random_bytes(2 * any(most_), random_());
      sample.pixels = random_bytes(sample.height * sample.width * 3, random_());
      sample.waves = random_bytes(8 * any(most_ / 8), random_());
      file.resize(align(file.size(), alignment));
      if (any(3) == 0) file.resize(file.size() + static_cast<size_t>(alignment * any(300)));
      const size_t start = file.size();
      append(file, sample.record, 1);
      append(file, sample.tokens, 2);
      append(file, sample.pixels, 1);
      append(file, swapped(sample.waves), 8);
      largest_ = std::max(largest_, static_cast<int64_t>(file.size() - start));
      starts_[object].push_back(start);
      tokens_[object].push_back(sample.tokens.size() / 2);
      pixels_[object].push_back(static_cast<uint64_t>(sample.height));
      pixels_[object].push_back(static_cast<uint64_t>(sample.width));
      waves_[object].push_back(sample.waves.size() / 8);
      samples_.push_back(std::move(sample));
    }
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
  std::vector<Bytes> contents_;
  std::vector<std::vector<uint64_t>> starts_, tokens_, pixels_, waves_;
  std::vector<SampleTable> tables_;
  std::vector<Sample> samples_;
  int64_t largest_ = kRecordBytes;
};

TEST_CASE("every field of every sample is what was stored, in any order and from any store") {
  const LeakCheck leaks;
  std::mt19937_64 random(180);
  for (int round = 0; round < 80; ++round) {
    CAPTURE(round);
    const Samples data({12, 0, 7, 21}, random() % 2 == 0 ? 40 : 3000, random() % 2 == 0 ? 16 : 512,
                       random());
    const int64_t block = random() % 2 == 0 ? 1 : 512;
    const auto store = data.store({.block_bytes = block, .max_open = 2, .seed = random()});
    const auto source =
        data.source(store, {.alignment = block, .with_record_numbers = round % 2 == 0});
    const EpochPlan plan(shuffled_order(data.count(), random()), 0, {.batch_size = 5});
    // Some batches do not fit into a buffer.
    const auto pool = round % 3 == 0 ? nullptr
                                     : std::make_shared<BufferPool>(BufferPoolConfig{
                                           .capacity = 3, .buffer_size = 8192 * (1 + round % 4)});
    BatchReader reader(source, plan, pool);
    Batch batch;
    std::vector<int64_t> records;
    int64_t number = 0;
    for (; reader.next(batch); ++number) {
      plan.records(number, records);
      REQUIRE(data.holds(batch.view, records));
      if (round % 2 == 0) {
        CHECK(std::memcmp(batch.view.tensors.back().data, records.data(), records.size() * 8) == 0);
      }
    }
    CHECK(number == plan.num_groups());
    BatchFetcher fetcher(source, pool);
    for (const std::vector<int64_t>& wanted :
         {std::vector<int64_t>{39, 3, 3, 0, 39, 20}, {7}, {}}) {
      fetcher.fetch(wanted, batch);
      CHECK(data.holds(batch.view, wanted));
    }
    batch = Batch();
    reader.close();
    if (pool != nullptr) CHECK(is_whole(*pool));
  }
}

TEST_CASE("batches that do not fit get memory of their own, counted, one at a time") {
  const LeakCheck leaks;
  const Samples data({60}, 2000, 512, 181);
  const auto source = data.source(data.store({}), {});
  const auto pool = std::make_shared<BufferPool>(
      BufferPoolConfig{.capacity = 4, .buffer_size = 4096, .alignment = 64});
  const EpochPlan plan(sequential_order(60), 0, {.batch_size = 3});
  BatchReader reader(source, plan, pool);
  Batch batch;
  int64_t oversize = 0;
  std::vector<int64_t> records;
  for (int64_t number = 0; reader.next(batch); ++number) {
    plan.records(number, records);
    REQUIRE(data.holds(batch.view, records));
    oversize += batch.buffer.size() > 4096;
  }
  CHECK(oversize > 5);
  CHECK(source->counters().oversize_batches == oversize);
  CHECK(source->counters().copied_bytes == 60 * 9);  // labels and boxes
}

TEST_CASE("neighbours are read at once, and samples far apart by themselves") {
  const Samples data({30}, 30, 16, 182);
  const auto form = data.form({.alignment = 512});
  const auto work = form->make_work();
  std::vector<int64_t> records(30);
  for (size_t index = 0; index < 30; ++index) records[index] = static_cast<int64_t>(29 - index);
  work->place(records);
  std::vector<Extent> extents;
  form->locate(records, extents);
  int64_t runs = 1;
  for (size_t index = 29; index > 0; --index) {
    const Extent& before = extents[index];
    runs += extents[index - 1].offset - before.offset - before.length > 4096;
  }
  CHECK(static_cast<int64_t>(work->runs().size()) == runs);
  CHECK(work->order().size() == work->runs().size());
}

TEST_CASE("tables are not believed: what does not lie in its object is an error of its batch") {
  const LeakCheck leaks;
  const uint64_t kMost = std::numeric_limits<uint64_t>::max();
  for (const uint64_t bad : {kMost, kMost / 2, uint64_t{1} << 62, uint64_t{1} << 40, uint64_t{4}}) {
    for (int column = 0; column < 4; ++column) {
      CAPTURE(bad);
      CAPTURE(column);
      Samples data({10}, 20, 16, 183);
      SampleTable& table = data.tables()[0];
      const void* memory =
          column == 0 ? table.starts : table.lengths[static_cast<size_t>(column - 1)];
      const_cast<uint64_t*>(static_cast<const uint64_t*>(memory))[4] =
          column > 0 && bad == 4 ? 90'000 : bad;
      const auto source = data.source(data.store({}), {});
      BatchReader reader(source, EpochPlan(sequential_order(10), 0, {.batch_size = 2}), nullptr);
      Batch batch;
      int64_t delivered = 0;
      const Caught error = caught([&] {
        while (reader.next(batch)) ++delivered;
      });
      CHECK(error.kind == ErrorKind::data);
      CHECK(error.says("object 0"));
      CHECK(error.says("sample "));
      CHECK(delivered <= 2);
    }
  }
}

TEST_CASE("layouts and tables that cannot be are refused") {
  const auto make = [](SampleForm::Layout layout, std::vector<SampleTable> tables) {
    SampleForm form(std::move(layout), std::move(tables), {"x"}, {});
  };
  const SampleForm::Layout layout = Samples::layout(1000);
  const std::vector<const void*> columns(3);
  CHECK(caught([&] { make(layout, {}); }).kind == ErrorKind::config);
  CHECK(caught([&] { make(layout, {{.num_samples = -1, .lengths = columns}}); }).kind ==
        ErrorKind::config);
  CHECK(caught([&] { make(layout, {{.num_samples = 1, .lengths = {}}}); }).kind ==
        ErrorKind::config);
  CHECK(caught([&] { make(Samples::layout(11), {{.lengths = columns}}); }).kind ==
        ErrorKind::config);
  make(layout, {{.lengths = columns}});
}

}  // namespace s3io::testing::sample_form_test
