#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "order/key.h"
#include "order/record_order.h"

namespace s3io {
namespace {

constexpr int64_t kLeastBlock = 1024;
constexpr int64_t kMostBlock = 65536;  // an index into a block, and into the parts, has 16 bits

// The first of `bounds` is 0, the last is the sum of the weights; part i has [i, i + 1).
std::vector<int64_t> cumulated(const std::vector<int64_t>& weights) {
  std::vector<int64_t> bounds{0};
  for (const int64_t weight : weights) {
    if (weight < 1) {
      throw Error(ErrorKind::config, message("a weight must be at least 1, not ", weight));
    }
    if (weight > RecordOrder::kMostPositions - bounds.back()) {
      throw Error(ErrorKind::config, "the weights add up to more than 2^62");
    }
    bounds.push_back(bounds.back() + weight);
  }
  return bounds;
}

// Which part comes when: pure arithmetic on the stream's positions.
class Mixture {
 public:
  // A block of the stream. Position i is the part's turn `first_turns[parts[i]] + turns[i]`.
  struct Block {
    int64_t number = -1;
    std::vector<uint16_t> parts;
    std::vector<uint16_t> turns;
    std::vector<int64_t> first_turns;  // by part
  };

  Mixture(const std::vector<int64_t>& weights, uint64_t seed)
      : bounds_(cumulated(weights)), seed_(seed), block_positions_(mix_block_positions(weights)) {}

  int64_t block_positions() const { return block_positions_; }

  void make_block(int64_t number, Block& block) const {
    const auto length = static_cast<size_t>(block_positions_);
    const size_t num_parts = bounds_.size() - 1;
    const int64_t begin = number * block_positions_;
    block.number = number;
    block.parts.resize(length);
    block.turns.resize(length);
    block.first_turns.resize(num_parts);
    auto next = block.parts.begin();
    for (size_t part = 0; part < num_parts; ++part) {
      block.first_turns[part] = turns_before(part, begin);
      const int64_t quota = turns_before(part, begin + block_positions_) - block.first_turns[part];
      next = std::fill_n(next, quota, static_cast<uint16_t>(part));
    }
    shuffle(std::span(block.parts), derive_key(seed_, KeyPurpose::mixture, number));
    std::vector<uint16_t> seen(num_parts);
    for (size_t index = 0; index < length; ++index) block.turns[index] = seen[block.parts[index]]++;
  }

 private:
  // How many of the first `positions`, whole blocks, are the part's: the difference of its rounded
  // bounds. Less than one away from its share; all parts' add up to `positions`; and never less
  // than a block before, because a part's share of a block is at least one.
  int64_t turns_before(size_t part, int64_t positions) const {
    return share(bounds_[part + 1], positions) - share(bounds_[part], positions);
  }
  int64_t share(int64_t bound, int64_t positions) const {
    __extension__ using Wide = __int128;  // both are at most 2^62
    return static_cast<int64_t>(Wide{bound} * positions / bounds_.back());
  }

  const std::vector<int64_t> bounds_;
  const uint64_t seed_;
  const int64_t block_positions_;
};

struct Parts {
  Parts(std::vector<MixPart> orders, const std::vector<int64_t>& weights, uint64_t seed)
      : parts(std::move(orders)), mixture(weights, seed) {}
  std::vector<MixPart> parts;
  Mixture mixture;
};

class MixedEpoch final : public EpochOrder {
 public:
  MixedEpoch(std::shared_ptr<const Parts> mix, int64_t begin)
      : mix_(std::move(mix)), begin_(begin), epochs_(mix_->parts.size()), counts_(epochs_.size()) {}

  void records(int64_t first, std::span<int64_t> out) const override {
    const int64_t length = mix_->mixture.block_positions();
    int64_t position = begin_ + first;
    const std::lock_guard lock(mutex_);
    while (!out.empty()) {
      const int64_t offset = position % length;
      if (block_.number != position / length) mix_->mixture.make_block(position / length, block_);
      const auto count = std::min(static_cast<size_t>(length - offset), out.size());
      take(static_cast<size_t>(offset), out.first(count));
      out = out.subspan(count);
      position += static_cast<int64_t>(count);
    }
  }

 private:
  struct PartEpoch {
    int64_t number = -1;
    std::unique_ptr<EpochOrder> order;
  };

  // Positions of one block. A part's turns among them follow one another: they are asked for at
  // once, then dealt out.
  void take(size_t offset, std::span<int64_t> out) const {
    std::fill(counts_.begin(), counts_.end(), 0);
    for (size_t index = 0; index < out.size(); ++index) ++counts_[block_.parts[offset + index]];
    // From counts to where each part's records begin in `drawn_`.
    std::exclusive_scan(counts_.begin(), counts_.end(), counts_.begin(), size_t{0});
    drawn_.resize(out.size());
    ends_.assign(counts_.begin(), counts_.end());
    for (size_t index = 0; index < out.size(); ++index) {
      const uint16_t part = block_.parts[offset + index];
      if (ends_[part] == counts_[part]) {
        const size_t end =
            part + size_t{1} < counts_.size() ? counts_[part + size_t{1}] : out.size();
        draw(part, block_.first_turns[part] + block_.turns[offset + index],
             std::span(drawn_).subspan(counts_[part], end - counts_[part]));
      }
      out[index] = drawn_[ends_[part]++];
    }
  }

  void draw(size_t part, int64_t turn, std::span<int64_t> out) const {
    const MixPart& source = mix_->parts[part];
    const int64_t length = source.order->num_positions();
    PartEpoch& epoch = epochs_[part];
    while (!out.empty()) {
      if (epoch.number != turn / length) {
        epoch.order = source.order->epoch(turn / length);
        epoch.number = turn / length;
      }
      const auto count = std::min(static_cast<size_t>(length - turn % length), out.size());
      epoch.order->records(turn % length, out.first(count));
      for (int64_t& record : out.first(count)) record += source.first_record;
      out = out.subspan(count);
      turn += static_cast<int64_t>(count);
    }
  }

  const std::shared_ptr<const Parts> mix_;
  const int64_t begin_;
  mutable std::mutex mutex_;  // guards what follows: memory of the last call, and nothing else
  mutable Mixture::Block block_;
  mutable std::vector<PartEpoch> epochs_;
  mutable std::vector<size_t> counts_;
  mutable std::vector<size_t> ends_;
  mutable std::vector<int64_t> drawn_;
};

class MixedOrder final : public RecordOrder {
 public:
  MixedOrder(std::shared_ptr<const Parts> mix, int64_t epoch_positions, int64_t num_records)
      : RecordOrder(epoch_positions, num_records), mix_(std::move(mix)) {}
  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    check_epoch(number);
    // The block in which the epoch ends must be within as well.
    if (number >= (kMostPositions - kMostBlock) / num_positions()) {
      throw Error(ErrorKind::config, message("epoch ", number, " of ", num_positions(),
                                             " positions is beyond the end of a mixture's stream"));
    }
    return std::make_unique<MixedEpoch>(mix_, number * num_positions());
  }

 private:
  const std::shared_ptr<const Parts> mix_;
};

int64_t check_parts(const std::vector<MixPart>& parts, size_t num_weights) {
  if (parts.empty()) throw Error(ErrorKind::config, "a mixture needs at least one data set");
  if (parts.size() != num_weights) {
    throw Error(ErrorKind::config, message("a mixture of ", parts.size(),
                                           " data sets needs as many weights, not ", num_weights));
  }
  int64_t num_records = 0;
  for (const MixPart& part : parts) {
    if (part.order == nullptr || part.order->num_positions() < 1) {
      throw Error(ErrorKind::config, "a data set without records cannot be part of a mixture");
    }
    if (part.first_record < 0 ||
        part.first_record > RecordOrder::kMostPositions - part.order->num_records()) {
      throw Error(ErrorKind::config, message("first_record ", part.first_record,
                                             " of a part is not between 0 and 2^62"));
    }
    num_records = std::max(num_records, part.first_record + part.order->num_records());
  }
  return num_records;
}

}  // namespace

int64_t mix_block_positions(const std::vector<int64_t>& weights) {
  if (weights.empty()) throw Error(ErrorKind::config, "a mixture needs at least one weight");
  const int64_t sum = cumulated(weights).back();
  const int64_t least = *std::min_element(weights.begin(), weights.end());
  int64_t positions = kLeastBlock;
  while (positions < kMostBlock && least < (sum - 1) / positions + 1) positions *= 2;
  if (least < (sum - 1) / positions + 1) {
    throw Error(ErrorKind::config,
                message("a weight of ", least, " is less than 1/", kMostBlock, " of their sum ",
                        sum, "; leave that data set out, or raise its weight"));
  }
  return positions;
}

RecordOrderPtr mix_order(std::vector<MixPart> parts, const std::vector<int64_t>& weights,
                         uint64_t seed, int64_t epoch_positions) {
  const int64_t num_records = check_parts(parts, weights.size());
  if (epoch_positions < 1) {
    throw Error(ErrorKind::config,
                message("an epoch of a mixture has at least 1 position, not ", epoch_positions));
  }
  auto mix = std::make_shared<const Parts>(std::move(parts), weights, seed);
  return std::make_shared<MixedOrder>(std::move(mix), epoch_positions, num_records);
}

}  // namespace s3io
