#include <algorithm>
#include <array>
#include <numeric>

#include "base/error.h"
#include "order/key.h"
#include "order/permutation.h"
#include "order/record_order.h"

namespace s3io {
namespace {

// Blocks come in turns: turn t is block `permutation.at(t)`. All have the same number of records,
// but for the last block of the file, which may be short: positions after its turn are shifted by
// what it lacks.
class BlockEpoch final : public EpochOrder {
 public:
  BlockEpoch(int64_t num_records, int64_t block_records, uint64_t key)
      : block_records_(block_records),
        permutation_(num_records == 0 ? 0 : (num_records - 1) / block_records + 1, key) {
    if (num_records == 0) return;
    short_turn_ = permutation_.position_of(permutation_.size() - 1);
    missing_ = permutation_.size() * block_records - num_records;
  }

  void records(int64_t first, std::span<int64_t> out) const override {
    const int64_t short_end = (short_turn_ + 1) * block_records_ - missing_;
    // As if the short block were whole.
    const int64_t position = first < short_end ? first : first + missing_;
    int64_t turn = position / block_records_;
    int64_t offset = position % block_records_;
    std::array<int64_t, 32> blocks;
    while (!out.empty()) {
      const auto wanted = static_cast<int64_t>(out.size() - 1) / block_records_ + 1;
      const auto ahead = std::min<int64_t>({wanted, permutation_.size() - turn, blocks.size()});
      const auto turns = std::span(blocks).first(static_cast<size_t>(ahead));
      permutation_.fill(turn, turns);
      for (const int64_t block : turns) {
        const int64_t length = block_records_ - (turn == short_turn_ ? missing_ : 0);
        const auto part = static_cast<size_t>(
            std::min<int64_t>(length - offset, static_cast<int64_t>(out.size())));
        std::iota(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(part),
                  block * block_records_ + offset);
        out = out.subspan(part);
        offset = 0;
        ++turn;
        if (out.empty()) return;
      }
    }
  }

 private:
  const int64_t block_records_;
  const Permutation permutation_;
  int64_t short_turn_ = 0;
  int64_t missing_ = 0;
};

class BlockOrder final : public RecordOrder {
 public:
  BlockOrder(int64_t num_records, int64_t block_records, uint64_t seed)
      : RecordOrder(num_records, num_records), block_records_(block_records), seed_(seed) {}
  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    check_epoch(number);
    return std::make_unique<BlockEpoch>(num_records(), block_records_,
                                        derive_key(seed_, KeyPurpose::blocks, number));
  }

 private:
  const int64_t block_records_;
  const uint64_t seed_;
};

}  // namespace

RecordOrderPtr block_order(int64_t num_records, int64_t block_records, uint64_t seed) {
  if (block_records < 1) {
    throw Error(ErrorKind::config, message("a block has at least 1 record, not ", block_records));
  }
  // A block of more records than there are is a block of all of them.
  const int64_t most = std::max<int64_t>(num_records, 1);
  return std::make_shared<BlockOrder>(num_records, std::min(block_records, most), seed);
}

}  // namespace s3io
