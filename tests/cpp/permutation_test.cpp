// Keyed permutations: bijective, invertible, and the same for ever.
#include "order/permutation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <vector>

#include "order/key.h"
#include "testing.h"

namespace s3io::testing::permutation_test {

constexpr int64_t kMostSize = Permutation::kMostSize;

std::vector<int64_t> filled(const Permutation& permutation, int64_t first, int64_t count) {
  std::vector<int64_t> values(static_cast<size_t>(count), -1);
  permutation.fill(first, values);
  return values;
}

bool is_bijective(const Permutation& permutation) {
  std::vector<int64_t> values = filled(permutation, 0, permutation.size());
  for (size_t position = 0; position < values.size(); ++position) {
    if (permutation.position_of(values[position]) != static_cast<int64_t>(position)) return false;
  }
  std::sort(values.begin(), values.end());
  for (size_t value = 0; value < values.size(); ++value) {
    if (values[value] != static_cast<int64_t>(value)) return false;
  }
  return true;
}

// These numbers may never change: states of training runs name positions of these orders.
TEST_CASE("keys and permutations are what they always were, on every machine") {
  CHECK(derive_key(0, {}) == 16294208416658607535U);  // SplitMix64's first number from seed 0
  CHECK(derive_key(0, {0}) == 14414704439142895858U);
  CHECK(derive_key(1, {1, 2}) == 14321965720406940928U);
  CHECK(derive_key(~uint64_t{0}, {~uint64_t{0}, 5}) == 189894607710662933U);

  struct Golden {
    int64_t size;
    std::array<int64_t, 4> values;  // at 0, 1, the middle and the end
  };
  const std::vector<Golden> goldens{
      {5, {0, 4, 2, 1}},
      {300, {116, 117, 225, 99}},
      {4096, {2345, 2240, 335, 2924}},
      {4097, {3728, 3078, 2381, 2727}},
      {1000000000, {345610012, 139765980, 945219966, 644328695}},
      {(int64_t{1} << 30) + 1, {826122471, 739136557, 675093549, 204448241}},
      {(int64_t{1} << 50) + 1,
       {862267829478388, 1044669301374441, 530712736857393, 541928831702143}},
      {kMostSize,
       {3577335942412608355, 115030361309924402, 2722177220910732585, 2167836076840660283}},
  };
  for (const auto& golden : goldens) {
    const auto& values = golden.values;
    const int64_t size = golden.size;
    CAPTURE(size);
    const Permutation permutation(size, 2026);
    CHECK(permutation.at(0) == values[0]);
    CHECK(permutation.at(1) == values[1]);
    CHECK(permutation.at(size / 2) == values[2]);
    CHECK(permutation.at(size - 1) == values[3]);
  }
}

TEST_CASE("every size up to 300, and sizes around powers of two and squares, are bijective") {
  for (int64_t size = 0; size <= 300; ++size) {
    CAPTURE(size);
    for (uint64_t key = 0; key < 3; ++key) CHECK(is_bijective(Permutation(size, key)));
  }
  for (const int64_t middle : {512, 1024, 4096, 65 * 65, 5041, 8192, 65536}) {
    for (int64_t size = middle - 1; size <= middle + 1; ++size) {
      CAPTURE(size);
      CHECK(is_bijective(Permutation(size, static_cast<uint64_t>(size))));
    }
  }
  std::mt19937_64 random(60);
  for (int round = 0; round < rounds(30); ++round) {
    const auto size = static_cast<int64_t>(random() % 30'000);
    CAPTURE(size);
    CHECK(is_bijective(Permutation(size, random())));
  }
}

TEST_CASE("at any size the inverse leads back, and all ways of asking agree") {
  std::mt19937_64 random(61);
  std::vector<int64_t> sizes{Permutation::kMostInTable, Permutation::kMostInTable + 1,
                             kMostSize - 1, kMostSize};
  for (int bits = 1; bits < 62; ++bits) {
    const int64_t power = int64_t{1} << bits;
    sizes.insert(sizes.end(), {power - 1, power, power + 1});
    sizes.push_back(1 + static_cast<int64_t>(random() % static_cast<uint64_t>(power)));
  }
  for (const int64_t size : sizes) {
    CAPTURE(size);
    const Permutation permutation(size, random());
    const auto count = std::min<int64_t>(size, static_cast<int64_t>(1 + random() % 40));
    for (const int64_t first : {int64_t{0}, size / 3, size - count}) {
      if (first + count > size) continue;
      const std::vector<int64_t> values = filled(permutation, first, count);
      std::vector<int64_t> applied(values.size());
      std::iota(applied.begin(), applied.end(), first);
      permutation.apply(applied);
      CHECK(applied == values);
      for (size_t index = 0; index < values.size(); ++index) {
        const int64_t position = first + static_cast<int64_t>(index);
        REQUIRE(permutation.at(position) == values[index]);
        REQUIRE(permutation.position_of(values[index]) == position);
        REQUIRE((values[index] >= 0 && values[index] < size));
      }
    }
  }
}

TEST_CASE("another key, or another size, is another order") {
  for (const int64_t size : {int64_t{200}, int64_t{1'000'000}, int64_t{1} << 40}) {
    const std::vector<int64_t> values = filled(Permutation(size, 1), 0, 100);
    CHECK(values != filled(Permutation(size, 2), 0, 100));
    CHECK(values != filled(Permutation(size + 1, 1), 0, 100));
  }
}

TEST_CASE("a size that makes no sense is refused") {
  for (const int64_t size : {int64_t{-1}, kMostSize + 1}) {
    const Caught error = caught([&] { Permutation(size, 0); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says(std::to_string(size)));
  }
}

TEST_CASE("no two short paths under some seeds have a key in common") {
  std::vector<uint64_t> keys;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    keys.push_back(derive_key(seed, {}));
    for (uint64_t first = 0; first < 30; ++first) {
      keys.push_back(derive_key(seed, {first}));
      for (uint64_t second = 0; second < 30; ++second) {
        keys.push_back(derive_key(seed, {first, second}));
      }
    }
  }
  std::sort(keys.begin(), keys.end());
  CHECK(std::adjacent_find(keys.begin(), keys.end()) == keys.end());
}

}  // namespace s3io::testing::permutation_test
