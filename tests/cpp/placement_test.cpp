// Records in buffers: after the reads that a placement asks for, every row is where it says.
#include "format/placement.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "base/align.h"
#include "testing.h"

namespace s3io::testing::placement_test {

struct Scene {
  std::vector<Bytes> files;
  ShardTable shards{{}};
  RecordLayout layout;
  int64_t alignment = 1;
};

int64_t pick(std::mt19937_64& random, std::initializer_list<int64_t> values) {
  return values.begin()[random() % values.size()];
}

Scene random_scene(std::mt19937_64& random) {
  Scene scene;
  scene.alignment = pick(random, {1, 64, 512, 4096});
  const int64_t record_bytes = random() % 2 == 0 ? pick(random, {1, 64, 512, 1024, 4096, 8192})
                                                 : static_cast<int64_t>(1 + random() % 3000);
  const int64_t other = static_cast<int64_t>(1 + random() % 5000);  // overlapping, or with gaps
  scene.layout = {.fields = {{}},
                  .record_bytes = record_bytes,
                  .record_stride = random() % 3 == 0 ? other : record_bytes};
  std::vector<Shard> table;
  const bool same_size = random() % 2 == 0;
  const auto count = static_cast<int64_t>(random() % 6);
  const int64_t header = pick(random, {0, 1, 128, 512, 4096, 5000});
  for (uint64_t number = 0, shards = 1 + random() % 5; number < shards; ++number) {
    Shard shard{.header_bytes = header, .num_records = same_size ? 1 + count : count};
    if (!same_size) shard.num_records = static_cast<int64_t>(random() % 20);
    const int64_t size = header + shard.num_records * scene.layout.record_stride + record_bytes;
    scene.files.push_back(random_bytes(size, random()));
    table.push_back(shard);
  }
  scene.shards = ShardTable(table);
  return scene;
}

// Runs of neighbours, or (with repetitions, where there are few) any records.
std::vector<int64_t> random_records(std::mt19937_64& random, int64_t existing) {
  std::vector<int64_t> records(1 + random() % 30);
  if (random() % 3 == 0) {
    for (int64_t& record : records) {
      record = static_cast<int64_t>(random() % static_cast<uint64_t>(existing));
    }
    return records;
  }
  int64_t next = static_cast<int64_t>(random() % static_cast<uint64_t>(existing));
  for (int64_t& record : records) {
    if (random() % 4 == 0) next = static_cast<int64_t>(random() % static_cast<uint64_t>(existing));
    record = next;
    next = (next + 1) % existing;
  }
  return records;
}

// The record's bytes, found by counting through the shards one by one.
Bytes record_bytes(const Scene& scene, int64_t record) {
  size_t shard = 0;
  while (record >= scene.shards.shards()[shard].num_records) {
    record -= scene.shards.shards()[shard++].num_records;
  }
  const int64_t begin =
      scene.shards.shards()[shard].header_bytes + record * scene.layout.record_stride;
  const auto first = scene.files[shard].begin() + begin;
  return Bytes(first, first + scene.layout.record_bytes);
}

// Does what direct reads do: whole blocks, from aligned offsets to aligned positions. Bytes beyond
// the end of a file stay as they are.
Bytes read_blocks(const Scene& scene, const Placement& placement, int64_t landing_bytes) {
  Bytes landing(static_cast<size_t>(landing_bytes));
  std::vector<std::pair<int64_t, int64_t>> used;
  for (const Run& run : placement.runs) {
    const Bytes& file = scene.files[static_cast<size_t>(run.object)];
    REQUIRE((run.position - run.offset) % scene.alignment == 0);
    const int64_t begin = align_down(run.offset, scene.alignment);
    const int64_t end = align_up(run.offset + run.length, scene.alignment);
    const int64_t target = run.position - (run.offset - begin);
    REQUIRE(target >= 0);
    REQUIRE(target + (end - begin) <= landing_bytes);
    used.emplace_back(target, target + (end - begin));
    const int64_t available = std::min<int64_t>(end, static_cast<int64_t>(file.size())) - begin;
    std::copy_n(file.begin() + begin, available, landing.begin() + target);
  }
  std::sort(used.begin(), used.end());
  for (size_t index = 1; index < used.size(); ++index) {
    REQUIRE(used[index - 1].second <= used[index].first);  // no two reads share a block
  }
  return landing;
}

TEST_CASE("after the reads and the packing every row is where the placement says") {
  std::mt19937_64 random(70);
  int64_t packed = 0;
  int64_t sorted = 0;
  int64_t in_place = 0;
  Placement placement;  // reused, as the reader does
  for (int round = 0; round < rounds(2000); ++round) {
    CAPTURE(round);
    const Scene scene = random_scene(random);
    if (scene.shards.num_records() == 0) continue;
    const std::vector<int64_t> records = random_records(random, scene.shards.num_records());
    const auto count = static_cast<int64_t>(records.size());
    place_records(records, scene.shards, scene.layout, scene.alignment, placement);
    const int64_t most = max_landing_bytes(count, scene.layout, scene.alignment);
    Bytes landing = read_blocks(scene, placement, most);
    if (placement.packs) {
      const int64_t moved = pack_rows(placement, scene.layout, landing.data());
      CHECK(moved <= count * scene.layout.record_bytes * (placement.is_sorted ? 3 : 1));
      ++(placement.is_sorted ? sorted : packed);
    } else {
      ++in_place;
    }
    for (int64_t row = 0; row < count; ++row) {
      const int64_t position = placement.first_row + row * placement.row_stride;
      REQUIRE(position >= 0);
      REQUIRE(position + scene.layout.record_bytes <= most);
      REQUIRE(equals(&landing[static_cast<size_t>(position)],
                     record_bytes(scene, records[static_cast<size_t>(row)])));
    }
  }
  CHECK(packed > rounds(200));  // the scenes reach all cases
  CHECK(sorted > rounds(40));
  CHECK(in_place > rounds(200));
}

TEST_CASE("neighbours, whole blocks and files of one record are never copied") {
  const auto packs = [](std::vector<int64_t> records, std::vector<Shard> shards, int64_t record) {
    const RecordLayout layout{.fields = {{}}, .record_bytes = record, .record_stride = record};
    Placement placement;
    place_records(records, ShardTable(std::move(shards)), layout, 512, placement);
    return placement.packs;
  };
  CHECK_FALSE(packs({5, 6, 7}, {{13, 10}}, 777));
  CHECK_FALSE(packs({5, 2, 9}, {{0, 10}}, 1024));
  CHECK_FALSE(packs({5, 2, 9}, {{128, 10}}, 1024));
  CHECK_FALSE(packs({1, 0, 2}, {{128, 1}, {128, 1}, {128, 1}}, 777));
  CHECK(packs({5, 2, 9}, {{0, 10}}, 777));
  CHECK(packs({0, 1}, {{0, 1}, {128, 1}}, 777));
}

TEST_CASE("reads are submitted in the order of files and offsets, each once") {
  std::mt19937_64 random(71);
  Placement placement;
  for (int round = 0; round < 500; ++round) {
    CAPTURE(round);
    const Scene scene = random_scene(random);
    if (scene.shards.num_records() == 0) continue;
    const std::vector<int64_t> records = random_records(random, scene.shards.num_records());
    place_records(records, scene.shards, scene.layout, scene.alignment, placement);
    std::vector<std::pair<int64_t, int64_t>> places;
    std::vector<uint32_t> indices = placement.order;
    for (const uint32_t index : indices) {
      places.emplace_back(placement.runs[index].object, placement.runs[index].offset);
    }
    CHECK(std::is_sorted(places.begin(), places.end()));
    std::sort(indices.begin(), indices.end());
    REQUIRE(indices.size() == placement.runs.size());
    for (uint32_t index = 0; index < indices.size(); ++index) CHECK(indices[index] == index);
  }
}

TEST_CASE("records that share or touch blocks are read together, in whatever order") {
  const auto reads = [](std::vector<int64_t> records, int64_t record_bytes, int64_t stride) {
    const RecordLayout layout{
        .fields = {{}}, .record_bytes = record_bytes, .record_stride = stride};
    Placement placement;
    place_records(records, ShardTable({{0, 1000}}), layout, 512, placement);
    return placement.runs.size();
  };
  CHECK(reads({3, 1, 2, 0}, 512, 512) == 1);      // neighbours
  CHECK(reads({12, 10, 14, 16}, 100, 100) == 1);  // two blocks next to each other
  CHECK(reads({30, 1, 33, 2}, 512, 512) == 4);    // three reads would do, but with copies
  CHECK(reads({40, 1, 41, 2}, 512, 512) == 2);
  CHECK(reads({7, 3, 5}, 512, 1024) == 3);  // gaps of whole blocks are not read
  CHECK(reads({4, 4, 4}, 512, 512) == 3);   // repeated records are read again
}

TEST_CASE("a record is found in its shard from any starting point, past empty ones") {
  const std::vector<int64_t> counts{0, 3, 0, 0, 5, 1, 0};
  std::vector<Shard> shards;
  for (const int64_t count : counts) shards.push_back({.num_records = count});
  const ShardTable table(shards);
  CHECK(table.num_records() == 9);
  int64_t record = 0;
  for (size_t shard = 0; shard < counts.size(); ++shard) {
    for (int64_t index = 0; index < counts[shard]; ++index, ++record) {
      for (size_t near = 0; near < counts.size(); ++near) {
        const ShardTable::Location location = table.locate(record, static_cast<int64_t>(near));
        CHECK(location.shard == static_cast<int64_t>(shard));
        CHECK(location.index == index);
      }
    }
  }
}

TEST_CASE("shards with negative or overflowing numbers are refused, naming the shard") {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const auto& shards :
       std::vector<std::vector<Shard>>{{{0, -1}}, {{-1, 1}}, {{0, 1}, {0, kMost}}}) {
    const Caught error = caught([&] { ShardTable table(shards); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("shard "));
  }
}

TEST_CASE("files in which an offset would overflow are refused, naming the path") {
  RecordLayout layout;
  layout.fields.emplace_back();
  layout.record_bytes = layout.record_stride = int64_t{1} << 40;
  check_offsets(ShardTable({{4096, int64_t{1} << 20}}), layout,
                ObjectNames(std::vector<std::string>{"good"}));
  for (const Shard& shard :
       std::vector<Shard>{{0, int64_t{1} << 40}, {std::numeric_limits<int64_t>::max(), 1}}) {
    const Caught error = caught([&] {
      check_offsets(ShardTable({shard}), layout, ObjectNames(std::vector<std::string>{"bad"}));
    });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("bad"));
  }
}

}  // namespace s3io::testing::placement_test
