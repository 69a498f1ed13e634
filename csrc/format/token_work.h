// One batch of tokens on its way: where they land, and the tensors that they become.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "format/token_form.h"

namespace s3io {

class TokenForm::Work final : public BatchWork {
 public:
  explicit Work(const TokenForm& form) : form_(form) {}

  int64_t place(std::span<const int64_t> records) override;
  std::span<const Run> runs() const override { return runs_; }
  std::span<const uint32_t> order() const override { return order_; }
  std::byte* land_in(std::span<std::byte> buffer) override {
    buffer_ = buffer;
    landing_ = buffer.data() + front_;
    return landing_;
  }
  void finish(BatchView& out) override;

 private:
  struct Row {
    size_t first;  // of its extents
    int64_t tokens;
  };
  struct Place {
    int64_t object;
    int64_t offset;
    uint32_t extent;
    auto operator<=>(const Place&) const = default;
  };

  int64_t count() const { return static_cast<int64_t>(rows_.size()); }
  int64_t tokens_of(const Extent& extent) const;
  // Those of row `row`.
  size_t end_of(size_t row) const {
    return row + 1 < rows_.size() ? rows_[row + 1].first : extents_.size();
  }
  void land();
  void gather(std::byte* out) const;
  void write_documents(BatchView& out, std::byte* values, std::byte*& free) const;
  void write_ragged(BatchView& out, size_t first, std::byte* values, std::byte*& free) const;
  std::byte* take(std::byte*& free, int64_t bytes) const;

  const TokenForm& form_;
  std::span<const int64_t> records_;
  Pieces pieces_;
  std::vector<Row> rows_;
  std::vector<Extent> extents_;     // of each row in turn
  std::vector<int64_t> positions_;  // of each extent in the landing area
  std::vector<Place> by_object_;    // of extents, sorted
  std::vector<Run> runs_;
  std::vector<uint32_t> order_;
  int64_t tokens_ = 0;   // of all rows
  int64_t longest_ = 0;  // of a row
  int64_t shortest_ = 0;
  int64_t front_ = 0;  // bytes before the landing area
  std::span<std::byte> buffer_;
  std::byte* landing_ = nullptr;
};

}  // namespace s3io
