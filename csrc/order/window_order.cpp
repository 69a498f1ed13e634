#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "base/error.h"
#include "order/key.h"
#include "order/permutation.h"
#include "order/record_order.h"

namespace s3io {
namespace {

class WindowEpoch final : public EpochOrder {
 public:
  WindowEpoch(std::unique_ptr<EpochOrder> inner, int64_t num_positions, int64_t window_positions,
              uint64_t seed, int64_t epoch)
      : inner_(std::move(inner)),
        num_positions_(num_positions),
        window_positions_(window_positions),
        seed_(seed),
        epoch_(epoch) {}

  void records(int64_t first, std::span<int64_t> out) const override {
    const std::lock_guard lock(mutex_);
    while (!out.empty()) {
      const int64_t number = first / window_positions_;
      const int64_t begin = number * window_positions_;
      const int64_t size = std::min(window_positions_, num_positions_ - begin);
      const auto part = static_cast<size_t>(
          std::min<int64_t>(begin + size - first, static_cast<int64_t>(out.size())));
      const std::span<int64_t> mixed = out.first(part);
      permutation_of(number, size).fill(first - begin, mixed);
      for (int64_t& record : mixed) inner_->records(begin + record, {&record, 1});
      out = out.subspan(part);
      first += static_cast<int64_t>(part);
    }
  }

  // Windows are mixtures of what `inner_` has there, as far as whole windows are asked for.
  void records_unordered(int64_t first, std::span<int64_t> out) const override {
    const int64_t end = first + static_cast<int64_t>(out.size());
    const bool is_whole =
        first % window_positions_ == 0 && (end % window_positions_ == 0 || end == num_positions_);
    if (is_whole) {
      inner_->records_unordered(first, out);
    } else {
      records(first, out);
    }
  }

 private:
  const Permutation& permutation_of(int64_t number, int64_t size) const {
    if (number_ != number) {
      permutation_.emplace(
          size, derive_key(seed_, {static_cast<uint64_t>(KeyPurpose::windows),
                                   static_cast<uint64_t>(epoch_), static_cast<uint64_t>(number)}));
      number_ = number;
    }
    return *permutation_;
  }

  const std::unique_ptr<EpochOrder> inner_;
  const int64_t num_positions_;
  const int64_t window_positions_;
  const uint64_t seed_;
  const int64_t epoch_;
  mutable std::mutex mutex_;  // guards what follows: the window that was asked for last
  mutable int64_t number_ = -1;
  mutable std::optional<Permutation> permutation_;
};

class WindowOrder final : public RecordOrder {
 public:
  WindowOrder(RecordOrderPtr inner, int64_t window_positions, uint64_t seed)
      : RecordOrder(inner->num_positions(), inner->num_records()),
        inner_(std::move(inner)),
        window_positions_(window_positions),
        seed_(seed) {}
  std::unique_ptr<EpochOrder> epoch(int64_t number) const override {
    return std::make_unique<WindowEpoch>(inner_->epoch(number), num_positions(), window_positions_,
                                         seed_, number);
  }

 private:
  const RecordOrderPtr inner_;
  const int64_t window_positions_;
  const uint64_t seed_;
};

}  // namespace

RecordOrderPtr window_order(RecordOrderPtr order, int64_t window_positions, uint64_t seed) {
  if (order == nullptr) throw Error(ErrorKind::config, "a window needs an order");
  if (window_positions < 1) {
    throw Error(ErrorKind::config,
                message("a window has at least 1 position, not ", window_positions));
  }
  const int64_t most = std::max<int64_t>(order->num_positions(), 1);
  return std::make_shared<WindowOrder>(std::move(order), std::min(window_positions, most), seed);
}

}  // namespace s3io
