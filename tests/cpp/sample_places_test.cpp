// Where samples are put: at blocks while padding is cheap, in shards while there is room.
#include "format/sample_places.h"

#include <doctest/doctest.h>

#include "testing.h"

namespace s3io::testing::sample_places_test {

SamplePlaces::Options options(int64_t shard_bytes) {
  return {.blocks = {4096, 512},
          .most_padding_percent = 3,
          .alignment = 16,
          .shard_bytes = shard_bytes,
          .index_bytes = 16};
}

std::vector<int64_t> add(SamplePlaces& places, const std::vector<int64_t>& sizes) {
  return places.add(sizes);
}

TEST_CASE("samples begin at blocks where all padding stays within three percent") {
  std::mt19937_64 random(1);
  for (const int64_t most : {int64_t{40}, int64_t{3000}, int64_t{50'000}, int64_t{400'000}}) {
    SamplePlaces places(options(INT64_MAX));
    int64_t end = 0;
    int64_t data = 0;
    int64_t padding = 0;
    for (int sample = 0; sample < 300; ++sample) {
      const auto size = static_cast<int64_t>(random() % static_cast<uint64_t>(most));
      const int64_t start = add(places, {size}).at(0);
      int64_t expected = (end + 15) / 16 * 16;
      for (const int64_t block : {int64_t{512}, int64_t{4096}}) {  // the larger one wins
        const int64_t next = (end + block - 1) / block * block;
        if (100 * (padding + next - end) <= 3 * (data + size)) expected = next;
      }
      CHECK(start == expected);
      padding += start - end;
      data += size;
      end = start + size;
    }
    CHECK(places.end() == end);
    CHECK(places.data_bytes() == data);
  }
}

TEST_CASE("a shard takes one sample at least, and no more than it has room for with their index") {
  SamplePlaces large(options(1000));
  CHECK(add(large, {5000, 1}) == std::vector<int64_t>{0});
  CHECK(add(large, {1}).empty());
  large.begin_shard();
  CHECK(large.end() == 0);
  CHECK(add(large, {1}) == std::vector<int64_t>{0});

  SamplePlaces::Options without_padding = options(1000);
  without_padding.blocks = {};
  SamplePlaces small(without_padding);
  CHECK(add(small, {480, 472, 1}) == std::vector<int64_t>{0, 480});
  CHECK(add(small, {0}).empty());
  small.begin_shard();
  CHECK(add(small, {480, 489}) == std::vector<int64_t>{0});
  CHECK(add(small, {488}) == std::vector<int64_t>{480});
  CHECK(add(small, {}).empty());
}

TEST_CASE("samples one by one or many at once have the same places") {
  std::vector<int64_t> sizes;
  std::mt19937_64 random(3);
  for (int sample = 0; sample < 500; ++sample) {
    sizes.push_back(static_cast<int64_t>(random() % 9000));
  }
  SamplePlaces at_once(options(INT64_MAX));
  SamplePlaces one_by_one(options(INT64_MAX));
  std::vector<int64_t> starts;
  for (const int64_t size : sizes) starts.push_back(add(one_by_one, {size}).at(0));
  CHECK(add(at_once, sizes) == starts);
}

}  // namespace s3io::testing::sample_places_test
