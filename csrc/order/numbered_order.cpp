#include <utility>

#include "base/error.h"
#include "order/record_order.h"

namespace s3io {
namespace {

class NumberedEpoch final : public EpochOrder {
 public:
  NumberedEpoch(std::unique_ptr<EpochOrder> inner, int64_t first)
      : inner_(std::move(inner)), first_(first) {}

  void records(int64_t first, std::span<int64_t> out) const override {
    inner_->records(first, out);
    for (int64_t& record : out) record += first_;
  }
  void records_unordered(int64_t first, std::span<int64_t> out) const override {
    inner_->records_unordered(first, out);
    for (int64_t& record : out) record += first_;
  }

 private:
  const std::unique_ptr<EpochOrder> inner_;
  const int64_t first_;  // number of the epoch
};

class NumberedOrder final : public RecordOrder {
 public:
  NumberedOrder(RecordOrderPtr inner, int64_t num_numbers)
      : RecordOrder(inner->num_positions(), num_numbers), inner_(std::move(inner)) {}

  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    check_epoch(number);
    const int64_t in_epoch = inner_->num_records();
    if (in_epoch > 0 && number >= num_records() / in_epoch) {
      throw Error(ErrorKind::config, message("epoch ", number, " has no record numbers: ",
                                             num_records() / in_epoch - 1, " is the last one"));
    }
    return std::make_unique<NumberedEpoch>(inner_->epoch(number), number * in_epoch);
  }

 private:
  const RecordOrderPtr inner_;
};

}  // namespace

RecordOrderPtr numbered_by_epoch(RecordOrderPtr order, int64_t num_numbers) {
  if (order == nullptr) throw Error(ErrorKind::config, "numbers need an order");
  return std::make_shared<NumberedOrder>(std::move(order), num_numbers);
}

}  // namespace s3io
