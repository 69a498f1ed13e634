// A keyed permutation of [0, size) that is computed, not stored: any position at once, and back.
//
// Construction: a Feistel network over mixed radices (Black and Rogaway, "Ciphers with arbitrary
// finite domains", CT-RSA 2002). A position is written as left * b + right, with left < a and
// right < b, where a = ceil(sqrt(size)) and b = ceil(size / a). Eight rounds then add, in turn,
//
//     left  = (left  + F(right, key 0, 2, 4, 6)) mod a
//     right = (right + F(left,  key 1, 3, 5, 7)) mod b
//
// each of which can be undone, whatever F is. F(half, key) mixes (half ^ key) by `mix64` and brings
// the result into the other half's range by a multiplication. Fewer than a of the a * b values lie
// beyond `size`: those go through the rounds again until they are below it ("cycle walking"), which
// happens to one position in sqrt(size).
//
// Up to kMostInTable the permutation is a table, shuffled by Fisher and Yates' method: a network
// with halves that small can not reach all orders, and it would show.
//
// It is no encryption: nobody hides anything from an adversary here.
//
// Immutable; any number of threads. The same values on every machine and in every version.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace s3io {

class Permutation {
 public:
  static constexpr int64_t kMostSize = int64_t{1} << 62;
  static constexpr int64_t kMostInTable = 4096;

  // Throws Error(config) for a size outside of [0, kMostSize].
  Permutation(int64_t size, uint64_t key);

  int64_t size() const { return static_cast<int64_t>(size_); }

  // The value at `position`, and the position of `value`; both in [0, size).
  int64_t at(int64_t position) const;
  int64_t position_of(int64_t value) const;
  // out[i] = at(first + i). Several times faster than one by one.
  void fill(int64_t first, std::span<int64_t> out) const;
  // values[i] = at(values[i]).
  void apply(std::span<int64_t> values) const;

 private:
  static constexpr size_t kRounds = 8;

  // Positions that go through the rounds side by side, so that the processor overlaps them.
  template <size_t lanes>
  struct Halves {
    std::array<uint64_t, lanes> left;
    std::array<uint64_t, lanes> right;
  };

  bool is_table() const { return size_ <= kMostInTable; }
  template <size_t lanes>
  void run_rounds(Halves<lanes>& halves) const;
  void undo_rounds(Halves<1>& halves) const;
  template <size_t lanes>
  void run(Halves<lanes>& halves, int64_t* out) const;
  uint64_t walk(uint64_t value) const;

  uint64_t size_;
  uint64_t lefts_ = 0;   // a
  uint64_t rights_ = 0;  // b
  std::array<uint64_t, kRounds> keys_{};
  std::vector<uint16_t> values_;     // by position: of small permutations
  std::vector<uint16_t> positions_;  // by value
};

}  // namespace s3io
