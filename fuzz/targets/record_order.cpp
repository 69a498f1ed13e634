// Orders of any numbers: refused, or every position has a record, each record comes once, and any
// part of an epoch is as in the whole one.
#include "order/record_order.h"

#include <algorithm>

#include "base/error.h"
#include "engine/any_order.h"

namespace s3io::fuzz {
namespace {

constexpr int64_t kMostListed = 2000;

void check_part(const EpochOrder& order, const std::vector<int64_t>& whole, Input& input) {
  const int64_t first = input.between(0, std::ssize(whole));
  const int64_t count = input.between(0, std::ssize(whole) - first);
  std::vector<int64_t> part(static_cast<size_t>(count));
  order.records(first, part);
  require(std::equal(part.begin(), part.end(), whole.begin() + first));
  std::vector<int64_t> unordered(part.size());
  order.records_unordered(first, unordered);
  std::sort(part.begin(), part.end());
  std::sort(unordered.begin(), unordered.end());
  require(part == unordered);
}

void check_whole(const RecordOrder& order, const EpochOrder& epoch, bool repeats, Input& input) {
  std::vector<int64_t> whole(static_cast<size_t>(order.num_positions()));
  epoch.records(0, whole);
  for (int part = 0; part < 3; ++part) check_part(epoch, whole, input);
  std::sort(whole.begin(), whole.end());
  if (whole.empty()) return;
  require(whole.front() >= 0 && whole.back() < order.num_records());
  require(repeats || std::adjacent_find(whole.begin(), whole.end()) == whole.end());
}

void read(Input& input) {
  bool repeats = false;
  try {
    const RecordOrderPtr order = any_order(input, 3, repeats);
    const auto epoch = order->epoch(input.number());
    if (order->num_positions() <= kMostListed) {
      check_whole(*order, *epoch, repeats, input);
      return;
    }
    std::vector<int64_t> records(static_cast<size_t>(input.between(1, 100)));
    epoch->records(input.between(0, order->num_positions() - std::ssize(records)), records);
    for (const int64_t record : records) require(record >= 0 && record < order->num_records());
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::config);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
