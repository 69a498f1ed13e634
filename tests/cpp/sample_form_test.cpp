// Samples of any length: every field of every sample is what was stored, however they lie.
#include "format/sample_form.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <limits>

#include "data_set.h"
#include "leak_check.h"
#include "memory_store.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "sample_set.h"
#include "testing.h"

namespace s3io::testing::sample_form_test {

TEST_CASE("every field of every sample is what was stored, in any order and from any store") {
  const LeakCheck leaks;
  std::mt19937_64 random(180);
  for (int round = 0; round < 80; ++round) {
    CAPTURE(round);
    const Samples data({12, 0, 7, 21}, random() % 2 == 0 ? 40 : 3000, random() % 2 == 0 ? 16 : 512,
                       random(),
                       {.in_pieces = random() % 2 == 0, .in_one_table = random() % 2 == 0});
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
          column == 0 ? table.starts[0] : table.lengths[static_cast<size_t>(column - 1)];
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
    SampleForm form(std::move(layout), std::move(tables),
                    std::make_shared<ObjectNames>(std::vector<std::string>{"x"}), {});
  };
  const uint64_t end = 100;
  const std::vector<const uint64_t*> starts(1);
  const SampleForm::Layout layout = Samples::layout(1000);
  const std::vector<const void*> columns(3);
  CHECK(caught([&] { make(layout, {}); }).kind == ErrorKind::config);
  const SampleTable right{.ends = &end, .starts = starts, .lengths = columns};
  make(layout, {right});
  CHECK(caught([&] { make(Samples::layout(11), {right}); }).kind == ErrorKind::config);
  const auto refused = [&](auto change) {
    SampleTable table = right;
    change(table);
    return caught([&] { make(layout, {table}); }).kind == ErrorKind::config;
  };
  CHECK(refused([](SampleTable& table) { table.num_samples = -1; }));
  CHECK(refused([](SampleTable& table) { table.lengths.clear(); }));
  CHECK(refused([](SampleTable& table) { table.starts.clear(); }));
  CHECK(refused([](SampleTable& table) { table.starts.resize(2); }));
  CHECK(refused([](SampleTable& table) { table.ends = nullptr; }));
  CHECK(refused([](SampleTable& table) { table.num_objects = 0; }));
  CHECK(refused([](SampleTable& table) { table.num_objects = 2; }));
  const uint64_t late[] = {1};
  CHECK(refused([&](SampleTable& table) { table.first_samples = late; }));
  SampleForm::Layout in_pieces = Samples::layout(1000, true);
  in_pieces.ragged[0].piece = size_t{1} << 40;
  CHECK(caught([&] { make(in_pieces, {right}); }).kind == ErrorKind::config);
}

TEST_CASE("fields that the table holds come with the samples, whatever order they are read in") {
  const LeakCheck leaks;
  const uint64_t ends[] = {3, 5};
  const uint64_t starts[] = {0, 1, 0, 2, 4};
  const uint64_t first_samples[] = {0, 2};
  const uint32_t lengths[] = {1, 2, 2, 2, 1};
  const int64_t labels[] = {10, 11, 12, 13, 14};
  const float boxes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const TableField label{.name = "label", .type = ScalarType::int64};
  const TableField box{.name = "box", .type = ScalarType::float32, .shape = {2}};
  const SampleForm::Layout layout{.in_table = {label, box},
                                  .ragged = {{.name = "data", .shape = {-1}}},
                                  .largest_sample_bytes = 2,
                                  .typical_bytes = 2};
  const SampleTable table{.num_samples = 5,
                          .num_objects = 2,
                          .first_samples = first_samples,
                          .ends = ends,
                          .starts = {starts},
                          .lengths = {lengths},
                          .values = {reinterpret_cast<const std::byte*>(labels),
                                     reinterpret_cast<const std::byte*>(boxes)}};
  const auto names = std::make_shared<ObjectNames>(std::vector<std::string>{"a", "b"});
  const SampleForm form(layout, {table}, names, {.alignment = 512, .with_record_numbers = true});
  CHECK(form.names() == std::vector<std::string>{"label", "box", "data"});
  const auto work = form.make_work();
  const std::vector<int64_t> records{4, 0, 3, 3};
  const int64_t bytes = work->place(records);
  const AlignedBuf buffer = AlignedBuf::allocate(bytes, 512);
  work->land_in(buffer.bytes());
  BatchView view;
  work->finish(view);
  for (size_t row = 0; row < records.size(); ++row) {
    CHECK(reinterpret_cast<const int64_t*>(view.tensors[0].data)[row] == 10 + records[row]);
    const auto* box_of_row = reinterpret_cast<const float*>(view.tensors[1].data) + 2 * row;
    CHECK(box_of_row[0] == static_cast<float>(2 * records[row]));
    CHECK(box_of_row[1] == static_cast<float>(2 * records[row] + 1));
    CHECK(reinterpret_cast<const int64_t*>(view.tensors[5].data)[row] == records[row]);
  }
  CHECK(view.tensors[1].sizes == std::vector<int64_t>{4, 2});
  CHECK(view.ragged[0].first == 2);
  CHECK(view.copied_bytes == 0);
  SampleForm::Layout wrong = layout;
  wrong.in_table[1].shape = {int64_t{1} << 40};
  CHECK(caught([&] { SampleForm(wrong, {table}, names, {}); }).kind == ErrorKind::config);
  wrong.in_table.pop_back();
  CHECK(caught([&] { SampleForm(wrong, {table}, names, {}); }).kind == ErrorKind::config);
}

TEST_CASE("all pieces of a sample together are no more than a sample may have") {
  const uint64_t end = 100'000, starts[] = {0}, others[] = {50'000};
  const uint32_t length = 20'000;
  const RaggedField first{.name = "a", .shape = {-1}};
  const RaggedField second{.name = "b", .shape = {-1}, .piece = 1};
  const auto make = [&](int64_t largest) {
    return std::make_unique<SampleForm>(
        SampleForm::Layout{
            .ragged = {first, second}, .largest_sample_bytes = largest, .typical_bytes = 1},
        std::vector<SampleTable>{{.num_samples = 1,
                                  .ends = &end,
                                  .starts = {starts, others},
                                  .lengths = {&length, &length}}},
        std::make_shared<ObjectNames>(std::vector<std::string>{"object"}), SampleForm::Options{});
  };
  const std::vector<int64_t> records{0};
  std::vector<Extent> extents;
  const auto right = make(40'000);
  right->locate(records, extents);
  CHECK(extents.size() == 2);
  CHECK(right->make_work()->place(records) <= right->most_bytes(1));
  const auto wrong = make(39'999);
  CHECK(caught([&] { wrong->locate(records, extents); }).kind == ErrorKind::data);
  CHECK(caught([&] { wrong->make_work()->place(records); }).says("sample 0"));
}

// As a reader does.
void read_runs(const BatchWork& work, std::byte* landing, const Bytes& object) {
  for (const Run& run : work.runs()) {
    std::memcpy(landing + run.position, object.data() + run.offset,
                static_cast<size_t>(run.length));
  }
}

// Of samples in two pieces, bytes and numbers, which lie anywhere in one object: beside each other,
// within each other, or the same ones.
struct AnyPieces {
  explicit AnyPieces(uint64_t seed, const SampleForm::Layout& layout) {
    std::mt19937_64 random(seed);
    uint64_t before = 0;
    for (size_t sample = 0; sample < kSamples; ++sample) {
      for (size_t piece = 0; piece < 2; ++piece) {
        const uint64_t element = piece == 0 ? 1 : 8;
        const uint64_t most = object.size() - 5 * element;
        uint64_t start = random() % 2 == 0 ? before + random() % 20 : random() % (most + 1);
        if (!layout.realigns) start -= start % element;
        if (random() % 4 == 0 && sample > 0) start = starts[piece].back();
        start = std::min(start, most / 8 * 8);
        lengths[piece].push_back(static_cast<uint32_t>(random() % 6));
        starts[piece].push_back(start);
        before = start + lengths[piece].back() * element;
      }
    }
    const SampleTable table{.num_samples = kSamples,
                            .ends = &end,
                            .starts = {starts[0].data(), starts[1].data()},
                            .lengths = {lengths[0].data(), lengths[1].data()}};
    form = std::make_unique<SampleForm>(
        layout, std::vector{table}, std::make_shared<ObjectNames>(std::vector<std::string>{"x"}),
        SampleForm::Options{});
  }

  // What the object has of a piece, its elements in this machine's byte order.
  Bytes expected(size_t sample, size_t piece, bool is_swapped) const {
    const size_t element = piece == 0 ? 1 : 8;
    const auto begin = object.begin() + static_cast<int64_t>(starts[piece][sample]);
    Bytes bytes(begin, begin + static_cast<int64_t>(lengths[piece][sample] * element));
    for (size_t at = 0; is_swapped && at < bytes.size(); at += element) {
      std::reverse(bytes.data() + at, bytes.data() + at + element);
    }
    return bytes;
  }

  static constexpr size_t kSamples = 6;
  const Bytes object = random_bytes(304, 184);
  const uint64_t end = object.size();
  std::array<std::vector<uint64_t>, 2> starts;
  std::array<std::vector<uint32_t>, 2> lengths;
  std::unique_ptr<SampleForm> form;
};

TEST_CASE("pieces that lie anywhere come as they are stored, however often, each read once") {
  bool realigns = false, is_swapped = false;
  SUBCASE("where they are aligned") {}
  SUBCASE("their bytes swapped") { is_swapped = true; }
  SUBCASE("moved to where they are aligned") { realigns = true; }
  SUBCASE("moved, and their bytes swapped") { realigns = is_swapped = true; }
  const SampleForm::Layout layout{.ragged = {{.name = "bytes", .shape = {-1}},
                                             {.name = "numbers",
                                              .type = ScalarType::float64,
                                              .swap_bytes = is_swapped,
                                              .shape = {-1},
                                              .piece = 1}},
                                  .largest_sample_bytes = 45,
                                  .typical_bytes = 20,
                                  .realigns = realigns};
  std::mt19937_64 random(185);
  for (int round = 0; round < rounds(1000); ++round) {
    CAPTURE(round);
    const AnyPieces pieces(random(), layout);
    const auto work = pieces.form->make_work();
    std::vector<int64_t> records(8);
    for (int64_t& record : records) record = static_cast<int64_t>(random() % AnyPieces::kSamples);
    const AlignedBuf buffer = AlignedBuf::allocate(work->place(records), 512);
    read_runs(*work, work->land_in(buffer.bytes()), pieces.object);
    BatchView view;
    work->finish(view);
    for (size_t row = 0; row < records.size(); ++row) {
      for (const size_t piece : {0, 1}) {
        const TensorView* tensors = view.tensors.data() + 3 * piece;
        const int64_t start = reinterpret_cast<const int64_t*>(tensors[1].data)[row];
        const int64_t length = reinterpret_cast<const int64_t*>(tensors[2].data)[row];
        const Bytes expected =
            pieces.expected(static_cast<size_t>(records[row]), piece, is_swapped);
        REQUIRE(length * size_bytes(tensors[0].type) == std::ssize(expected));
        REQUIRE(equals(tensors[0].data + start * size_bytes(tensors[0].type), expected));
      }
    }
    const auto sample = static_cast<size_t>(records[0]);
    if (pieces.starts[0][sample] == pieces.starts[1][sample]) continue;
    work->place({records.begin(), 1});
    const size_t runs = work->runs().size();
    work->place(std::vector<int64_t>(4, records[0]));
    CHECK(work->runs().size() == runs);
  }
}

TEST_CASE("one sample in each of many objects needs no starts") {
  const uint64_t ends[] = {3, 0, 7};
  const uint32_t lengths[] = {3, 0, 7};
  const SampleForm form(
      {.ragged = {{.name = "data", .shape = {-1}}}, .largest_sample_bytes = 7, .typical_bytes = 4},
      {{.num_samples = 3,
        .num_objects = 3,
        .ends = ends,
        .starts = {nullptr},
        .lengths = {lengths}}},
      std::make_shared<ObjectNames>(std::vector<std::string>{"a", "b", "c"}), {});
  std::vector<Extent> extents;
  const std::vector<int64_t> records{2, 0, 1};
  form.locate(records, extents);
  REQUIRE(extents.size() == 3);
  for (size_t row = 0; row < 3; ++row) {
    CHECK(extents[row].object == records[row]);
    CHECK(extents[row].offset == 0);
    CHECK(extents[row].length == static_cast<int64_t>(ends[records[row]]));
  }
}

TEST_CASE("names of objects are those that were given, and columns of them are checked") {
  const std::vector<std::string> names{"a", "", "long name", "ä"};
  const ObjectNames copied(names);
  REQUIRE(copied.count() == 4);
  for (size_t index = 0; index < names.size(); ++index) {
    CHECK(copied[static_cast<int64_t>(index)] == names[index]);
  }
  const std::string bytes = "ab";
  const uint64_t right[] = {1, 1, 2}, descending[] = {1, 0, 2}, beyond[] = {1, 3};
  CHECK(ObjectNames(bytes, right, nullptr)[2] == "b");
  CHECK(caught([&] { ObjectNames(bytes, descending, nullptr); }).kind == ErrorKind::config);
  CHECK(caught([&] { ObjectNames(bytes, beyond, nullptr); }).kind == ErrorKind::config);
}

}  // namespace s3io::testing::sample_form_test
