#include "order/key.h"
#include "order/permutation.h"
#include "order/record_order.h"

namespace s3io {
namespace {

class ShuffledEpoch final : public EpochOrder {
 public:
  ShuffledEpoch(int64_t num_records, uint64_t key) : permutation_(num_records, key) {}
  void records(int64_t first, std::span<int64_t> out) const override {
    permutation_.fill(first, out);
  }

 private:
  const Permutation permutation_;
};

class ShuffledOrder final : public RecordOrder {
 public:
  ShuffledOrder(int64_t num_records, uint64_t seed)
      : RecordOrder(num_records, num_records), seed_(seed) {}
  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    check_epoch(number);
    return std::make_unique<ShuffledEpoch>(num_records(),
                                           derive_key(seed_, KeyPurpose::records, number));
  }

 private:
  const uint64_t seed_;
};

}  // namespace

RecordOrderPtr shuffled_order(int64_t num_records, uint64_t seed) {
  return std::make_shared<ShuffledOrder>(num_records, seed);
}

}  // namespace s3io
