// One batch of samples on its way: where they land, and the tensors that view them there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "format/sample_form.h"

namespace s3io {

// A sample's ragged fields begin at multiples of their elements' size, up to this.
inline constexpr int64_t kMostElementAlignment = 16;

inline int64_t element_alignment(ScalarType type) {
  return std::min(size_bytes(type), kMostElementAlignment);
}

class SampleForm::Work final : public BatchWork {
 public:
  explicit Work(const SampleForm& form) : form_(form) {}

  int64_t place(std::span<const int64_t> records) override;
  std::span<const Run> runs() const override { return runs_; }
  std::span<const uint32_t> order() const override { return order_; }
  std::byte* land_in(std::span<std::byte> buffer) override {
    buffer_ = buffer;
    landing_ = buffer.data() + form_.fixed_bytes(count());
    return landing_;
  }
  void finish(BatchView& out) override;

 private:
  struct Piece {
    Extent extent;
    int64_t position = 0;  // in the landing area
  };

  int64_t count() const { return static_cast<int64_t>(places_.size()); }
  Piece& piece_of(size_t row, size_t piece) { return pieces_[row * form_.num_pieces() + piece]; }
  int64_t elements_of(size_t row, size_t field) const {
    return elements_[row * form_.layout_.ragged.size() + field];
  }
  void land();
  bool is_whole(uint32_t index) const;
  bool has_checksum(uint32_t index) const;
  int64_t shift_of(uint32_t index) const;
  bool is_same_piece(uint32_t index, uint32_t other) const;  // of one sample that is there twice
  void realign(BatchView& out);
  void check_sums();
  void swap_in_place(size_t field);
  void write_fixed(BatchView& out, std::byte*& free);
  void write_in_table(BatchView& out, std::byte*& free) const;
  void write_ragged(BatchView& out, std::byte*& free);
  int64_t* take_numbers(std::byte*& free, int64_t count) const;

  const SampleForm& form_;
  std::span<const int64_t> records_;
  std::vector<Place> places_;        // as the records
  std::vector<Piece> pieces_;        // of each record in turn
  std::vector<int64_t> elements_;    // of each record in turn: of its ragged fields
  std::vector<Extent> extents_;      // of the record at hand
  std::vector<uint32_t> by_object_;  // numbers of pieces, in the order of objects and offsets
  std::vector<Run> runs_;
  std::vector<uint32_t> order_;
  std::vector<int64_t> ends_;  // of each piece: how far its fields were looked at
  int64_t landing_bytes_ = 0;
  std::span<std::byte> buffer_;
  std::byte* landing_ = nullptr;
};

}  // namespace s3io
