#include <numeric>

#include "order/record_order.h"

namespace s3io {
namespace {

class SequentialEpoch final : public EpochOrder {
 public:
  void records(int64_t first, std::span<int64_t> out) const override {
    std::iota(out.begin(), out.end(), first);
  }
};

class SequentialOrder final : public RecordOrder {
 public:
  explicit SequentialOrder(int64_t num_records) : RecordOrder(num_records, num_records) {}
  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    check_epoch(number);
    return std::make_unique<SequentialEpoch>();
  }
};

}  // namespace

RecordOrderPtr sequential_order(int64_t num_records) {
  return std::make_shared<SequentialOrder>(num_records);
}

}  // namespace s3io
