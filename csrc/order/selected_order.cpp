#include <algorithm>
#include <utility>

#include "base/error.h"
#include "order/permutation.h"
#include "order/record_order.h"

namespace s3io {
namespace {

struct Stage {
  int64_t offset;
  std::optional<Permutation> permutation;
};
using Stages = std::shared_ptr<const std::vector<Stage>>;

class SelectedEpoch final : public EpochOrder {
 public:
  SelectedEpoch(std::unique_ptr<EpochOrder> inner, Stages stages)
      : inner_(std::move(inner)), stages_(std::move(stages)) {}

  void records(int64_t first, std::span<int64_t> out) const override {
    inner_->records(first, out);
    select(out);
  }
  void records_unordered(int64_t first, std::span<int64_t> out) const override {
    inner_->records_unordered(first, out);
    select(out);
  }

 private:
  void select(std::span<int64_t> out) const {
    for (const Stage& stage : *stages_) {
      for (int64_t& record : out) record += stage.offset;
      if (stage.permutation) stage.permutation->apply(out);
    }
  }

  const std::unique_ptr<EpochOrder> inner_;
  const Stages stages_;
};

class SelectedOrder final : public RecordOrder {
 public:
  SelectedOrder(RecordOrderPtr inner, Stages stages, int64_t num_records)
      : RecordOrder(inner->num_positions(), num_records),
        inner_(std::move(inner)),
        stages_(std::move(stages)) {}
  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    return std::make_unique<SelectedEpoch>(inner_->epoch(number), stages_);
  }

 private:
  const RecordOrderPtr inner_;
  const Stages stages_;
};

void check_stage(const ViewStage& stage, int64_t num_records) {
  if (stage.offset < 0 || stage.count < 0 ||
      stage.offset > RecordOrder::kMostPositions - stage.count) {
    throw Error(ErrorKind::config, message("a view of ", stage.count, " records from record ",
                                           stage.offset, " does not exist"));
  }
  if (num_records > stage.count) {
    throw Error(ErrorKind::config, message("an order of ", num_records,
                                           " records does not fit a view of ", stage.count));
  }
  if (stage.permutation && stage.offset + stage.count > stage.permutation->size) {
    throw Error(ErrorKind::config,
                message("a view of records ", stage.offset, " to ", stage.offset + stage.count,
                        " does not fit a permutation of ", stage.permutation->size));
  }
}

}  // namespace

RecordOrderPtr select_order(RecordOrderPtr order, const std::vector<ViewStage>& stages) {
  if (order == nullptr) throw Error(ErrorKind::config, "a view needs an order");
  auto made = std::make_shared<std::vector<Stage>>();
  int64_t num_records = order->num_records();
  for (const ViewStage& stage : stages) {
    check_stage(stage, num_records);
    made->push_back({.offset = stage.offset, .permutation = std::nullopt});
    num_records = stage.offset + num_records;
    if (stage.permutation) {
      made->back().permutation.emplace(stage.permutation->size, stage.permutation->key);
      num_records = stage.permutation->size;
    }
  }
  return std::make_shared<SelectedOrder>(std::move(order), std::move(made), num_records);
}

}  // namespace s3io
