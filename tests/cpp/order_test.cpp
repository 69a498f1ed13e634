// Orders of records: the same for ever, whole, and the same however they are asked for.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "order/record_order.h"
#include "testing.h"

namespace s3io::testing::order_test {

constexpr int64_t kMostPositions = RecordOrder::kMostPositions;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

std::vector<int64_t> records(const EpochOrder& order, int64_t first, int64_t count) {
  std::vector<int64_t> numbers(static_cast<size_t>(count), -1);
  order.records(first, numbers);
  return numbers;
}

std::vector<int64_t> records(const RecordOrderPtr& order, int64_t epoch, int64_t first,
                             int64_t count) {
  return records(*order->epoch(epoch), first, count);
}

std::vector<int64_t> whole(const RecordOrderPtr& order, int64_t epoch) {
  return records(order, epoch, 0, order->num_positions());
}

RecordOrderPtr example_mix() {
  return mix_order({{.order = shuffled_order(50, 42), .first_record = 0},
                    {.order = sequential_order(3000), .first_record = 50},
                    {.order = block_order(100, 8, 42), .first_record = 3050}},
                   {5, 3, 2}, 42, 100'000);
}

std::vector<RecordOrderPtr> examples() {
  return {sequential_order(1000),
          shuffled_order(1000, 1),
          shuffled_order(10'000, 2),
          block_order(1000, 7, 3),
          block_order(1000, 1, 4),
          block_order(1000, 250, 5),
          block_order(1000, 5000, 6),
          block_order(50'000, 3, 7),
          window_order(block_order(5000, 7, 12), 100, 13),
          window_order(shuffled_order(20'000, 14), 6000, 15),
          select_order(shuffled_order(900, 8),
                       {{.offset = 5, .count = 900, .permutation = {}},
                        {.offset = 50, .count = 1000, .permutation = {{.size = 9000, .key = 7}}}}),
          mix_order({{.order = shuffled_order(10, 9), .first_record = 0},
                     {.order = sequential_order(7000), .first_record = 10}},
                    {1, 2}, 10, 5000),
          mix_order({{.order = example_mix(), .first_record = 0},
                     {.order = sequential_order(1), .first_record = 4000}},
                    {9999, 1}, 11, 3000)};
}

// These numbers may never change: states of training runs name positions of these orders.
TEST_CASE("orders are what they always were, on every machine") {
  using Numbers = std::vector<int64_t>;
  CHECK(records(shuffled_order(1'000'000'000, 42), 0, 0, 4) ==
        Numbers{464868578, 413661517, 273572366, 832404412});
  CHECK(records(shuffled_order(1'000'000'000, 42), 3, 990, 4) ==
        Numbers{294975543, 9358749, 13543528, 790895092});
  CHECK(records(block_order(1003, 10, 42), 0, 0, 4) == Numbers{70, 71, 72, 73});
  CHECK(records(block_order(1003, 10, 42), 3, 990, 4) == Numbers{657, 658, 659, 530});
  const RecordOrderPtr windows = window_order(block_order(1003, 10, 42), 40, 42);
  CHECK(records(windows, 0, 0, 4) == Numbers{78, 70, 650, 655});
  CHECK(records(windows, 3, 990, 4) == Numbers{658, 659, 534, 578});
  const RecordOrderPtr view =
      select_order(shuffled_order(100, 42),
                   {{.offset = 5, .count = 200, .permutation = {}},
                    {.offset = 300, .count = 600, .permutation = {{.size = 1000, .key = 7}}}});
  CHECK(records(view, 0, 0, 4) == Numbers{387, 732, 238, 435});
  CHECK(records(view, 3, 60, 4) == Numbers{272, 792, 303, 979});
  CHECK(records(example_mix(), 0, 0, 4) == Numbers{48, 17, 5, 11});
  CHECK(records(example_mix(), 3, 990, 4) == Numbers{348, 5, 3120, 349});
}

TEST_CASE("any part of an epoch is that part of the whole, from any thread") {
  std::mt19937_64 random(70);
  for (const RecordOrderPtr& order : examples()) {
    for (const int64_t epoch : {0, 1, 5}) {
      const std::vector<int64_t> all = whole(order, epoch);
      CHECK(*std::max_element(all.begin(), all.end()) < order->num_records());
      const auto shared = order->epoch(epoch);
      std::vector<std::thread> threads;
      std::atomic<int> wrong{0};
      for (int number = 0; number < 3; ++number) {
        threads.emplace_back([&, seed = random()] {
          std::mt19937_64 own(seed);
          for (int round = 0; round < rounds(60); ++round) {
            const size_t first = own() % all.size();
            const size_t count = own() % (1 + std::min<size_t>(all.size() - first, 3000));
            const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
            const auto got =
                records(*shared, static_cast<int64_t>(first), static_cast<int64_t>(count));
            if (!std::equal(got.begin(), got.end(), begin)) ++wrong;
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("unordered, the records of a range are the same") {
  for (const RecordOrderPtr& order : examples()) {
    const auto epoch = order->epoch(1);
    const int64_t size = order->num_positions();
    for (const auto& [first, last] : std::vector<std::pair<int64_t, int64_t>>{
             {0, size}, {0, 100}, {100, 300}, {size / 2, size}, {37, 53}}) {
      if (last > size || first > last) continue;
      std::vector<int64_t> expected = records(*epoch, first, last - first);
      std::vector<int64_t> got(expected.size());
      epoch->records_unordered(first, got);
      std::sort(expected.begin(), expected.end());
      std::sort(got.begin(), got.end());
      CHECK(got == expected);
    }
  }
}

TEST_CASE("an epoch's order lives on its own") {
  for (RecordOrderPtr& order : examples()) {
    const std::vector<int64_t> expected = whole(order, 2);
    const auto epoch = order->epoch(2);
    const int64_t count = order->num_positions();
    order.reset();
    CHECK(records(*epoch, 0, count) == expected);
  }
}

TEST_CASE("shuffled and block orders hold every record once, in another order in every epoch") {
  std::mt19937_64 random(71);
  for (int round = 0; round < rounds(200); ++round) {
    const auto count = static_cast<int64_t>(random() % 6000);
    const auto block = static_cast<int64_t>(1 + random() % (round % 2 == 0 ? 20 : 5000));
    CAPTURE(count);
    CAPTURE(block);
    for (const RecordOrderPtr& order :
         {shuffled_order(count, random()), block_order(count, block, random()),
          window_order(block_order(count, block, random()), 1 + block / 2, random())}) {
      std::vector<int64_t> all = whole(order, 0);
      std::sort(all.begin(), all.end());
      CHECK(all == whole(sequential_order(count), 0));
    }
  }
  CHECK(whole(shuffled_order(1000, 1), 0) != whole(shuffled_order(1000, 1), 1));
  CHECK(whole(shuffled_order(1000, 1), 0) != whole(shuffled_order(1000, 2), 0));
  CHECK(whole(block_order(1000, 9, 1), 0) != whole(block_order(1000, 9, 1), 1));
  CHECK(whole(block_order(1000, 9, 1), 0) != whole(block_order(1000, 9, 2), 0));
}

TEST_CASE("the largest orders work, up to their last position") {
  const std::vector<RecordOrderPtr> orders{
      sequential_order(kMostPositions),
      shuffled_order(kMostPositions, 1),
      block_order(kMostPositions, 3, 1),
      block_order(kMostPositions, kMost, 1),
      window_order(block_order(kMostPositions, 3, 1), kMost, 1),
      mix_order({{.order = shuffled_order(kMostPositions, 1), .first_record = 0},
                 {.order = sequential_order(3), .first_record = kMostPositions - 3}},
                {kMostPositions - (kMostPositions >> 16), kMostPositions >> 16}, 1,
                kMostPositions - (1 << 20))};
  for (const RecordOrderPtr& order : orders) {
    const int64_t first = order->num_positions() - 100;
    for (const int64_t record : records(order, 0, first, 100)) {
      CHECK((record >= 0 && record < order->num_records()));
    }
  }
}

TEST_CASE("orders that make no sense are refused") {
  const RecordOrderPtr ten = sequential_order(10);
  const auto refused = [](const auto& make) {
    return caught([&] { static_cast<void>(make()); }).kind == ErrorKind::config;
  };
  for (const int64_t count : {int64_t{-1}, kMostPositions + 1}) {
    CHECK(refused([&] { return sequential_order(count); }));
    CHECK(refused([&] { return shuffled_order(count, 0); }));
    CHECK(refused([&] { return block_order(count, 4, 0); }));
  }
  CHECK(refused([&] { return block_order(10, 0, 0); }));
  CHECK(refused([&] { return window_order(ten, 0, 0); }));
  CHECK(refused([&] { return window_order(nullptr, 1, 0); }));
  for (const RecordOrderPtr& order : examples()) CHECK(refused([&] { return order->epoch(-1); }));

  const std::vector<ViewStage> bad_stages{
      {.offset = -1, .count = 10, .permutation = {}},
      {.offset = 0, .count = 9, .permutation = {}},
      {.offset = 0, .count = -1, .permutation = {}},
      {.offset = kMost, .count = 10, .permutation = {}},
      {.offset = 1, .count = 10, .permutation = {{.size = 10, .key = 0}}},
      {.offset = 0, .count = 10, .permutation = {{.size = kMost, .key = 0}}},
  };
  for (const ViewStage& stage : bad_stages) {
    CHECK(refused([&] { return select_order(ten, {stage}); }));
  }
  CHECK(refused([&] { return select_order(nullptr, {}); }));

  const std::vector<std::vector<int64_t>> bad_weights{
      {}, {1}, {1, 2, 3}, {1, 0}, {1, -1}, {1, 65536}, {kMost, kMost}, {kMostPositions, 1}};
  for (const std::vector<int64_t>& weights : bad_weights) {
    CHECK(refused([&] { return mix_order({{ten, 0}, {ten, 10}}, weights, 0, 5); }));
  }
  CHECK(refused([&] { return mix_order({}, {}, 0, 5); }));
  CHECK(refused([&] { return mix_order({{ten, -1}}, {1}, 0, 5); }));
  CHECK(refused([&] { return mix_order({{ten, kMostPositions}}, {1}, 0, 5); }));
  CHECK(refused([&] { return mix_order({{nullptr, 0}}, {1}, 0, 5); }));
  CHECK(refused([&] { return mix_order({{sequential_order(0), 0}}, {1}, 0, 5); }));
  CHECK(refused([&] { return mix_order({{ten, 0}}, {1}, 0, 0); }));
  CHECK(refused([&] { return mix_order({{ten, 0}}, {1}, 0, kMostPositions)->epoch(1); }));
}

}  // namespace s3io::testing::order_test
