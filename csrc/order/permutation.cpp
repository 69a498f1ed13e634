#include "order/permutation.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "order/key.h"

namespace s3io {
namespace {

constexpr size_t kLanes = 8;

// In whole numbers: a rounded square root need not be the same everywhere.
uint64_t square_root_rounded_up(uint64_t value) {
  uint64_t root = 0;
  for (uint64_t bit = uint64_t{1} << 31; bit != 0; bit >>= 1) {
    if ((root | bit) * (root | bit) <= value) root |= bit;
  }
  return root * root < value ? root + 1 : root;
}

uint64_t add(uint64_t half, uint64_t other, uint64_t key, uint64_t radix) {
  const uint64_t sum = half + scale_to(mix64(other ^ key), radix);
  return sum < radix ? sum : sum - radix;
}

uint64_t subtract(uint64_t half, uint64_t other, uint64_t key, uint64_t radix) {
  const uint64_t amount = scale_to(mix64(other ^ key), radix);
  return half < amount ? half + radix - amount : half - amount;
}

}  // namespace

Permutation::Permutation(int64_t size, uint64_t key) : size_(static_cast<uint64_t>(size)) {
  if (size < 0 || size > kMostSize) {
    throw Error(ErrorKind::config,
                message("a permutation has between 0 and 2^62 positions, not ", size));
  }
  if (is_table()) {
    values_.resize(size_);
    std::iota(values_.begin(), values_.end(), uint16_t{0});
    shuffle(std::span(values_), derive_key(key, {size_}));
    positions_.resize(size_);
    for (size_t position = 0; position < size_; ++position) {
      positions_[values_[position]] = static_cast<uint16_t>(position);
    }
    return;
  }
  lefts_ = square_root_rounded_up(size_);
  rights_ = (size_ - 1) / lefts_ + 1;
  for (uint64_t round = 0; round < kRounds; ++round) keys_[round] = derive_key(key, {size_, round});
}

template <size_t lanes>
void Permutation::run_rounds(Halves<lanes>& halves) const {
  for (size_t round = 0; round < kRounds; round += 2) {
    for (size_t lane = 0; lane < lanes; ++lane) {
      halves.left[lane] = add(halves.left[lane], halves.right[lane], keys_[round], lefts_);
    }
    for (size_t lane = 0; lane < lanes; ++lane) {
      halves.right[lane] = add(halves.right[lane], halves.left[lane], keys_[round + 1], rights_);
    }
  }
}

void Permutation::undo_rounds(Halves<1>& halves) const {
  for (size_t round = kRounds; round > 0; round -= 2) {
    halves.right[0] = subtract(halves.right[0], halves.left[0], keys_[round - 1], rights_);
    halves.left[0] = subtract(halves.left[0], halves.right[0], keys_[round - 2], lefts_);
  }
}

// Sends a value beyond the size through the rounds until it is within. It ends: the way leads
// around a cycle of the network that has at least one value within, where it came from.
uint64_t Permutation::walk(uint64_t value) const {
  while (value >= size_) {
    Halves<1> halves{{value / rights_}, {value % rights_}};
    run_rounds(halves);
    value = halves.left[0] * rights_ + halves.right[0];
  }
  return value;
}

template <size_t lanes>
void Permutation::run(Halves<lanes>& halves, int64_t* out) const {
  run_rounds(halves);
  for (size_t lane = 0; lane < lanes; ++lane) {
    const uint64_t value = halves.left[lane] * rights_ + halves.right[lane];
    out[lane] = static_cast<int64_t>(value < size_ ? value : walk(value));
  }
}

int64_t Permutation::at(int64_t position) const {
  const auto index = static_cast<uint64_t>(position);
  if (is_table()) return values_[index];
  Halves<1> halves{{index / rights_}, {index % rights_}};
  int64_t value = 0;
  run(halves, &value);
  return value;
}

int64_t Permutation::position_of(int64_t value) const {
  auto index = static_cast<uint64_t>(value);
  if (is_table()) return positions_[index];
  do {
    Halves<1> halves{{index / rights_}, {index % rights_}};
    undo_rounds(halves);
    index = halves.left[0] * rights_ + halves.right[0];
  } while (index >= size_);
  return static_cast<int64_t>(index);
}

void Permutation::fill(int64_t first, std::span<int64_t> out) const {
  if (is_table()) {
    std::copy_n(values_.begin() + first, out.size(), out.begin());
    return;
  }
  // Successive positions need one division in all.
  uint64_t left = static_cast<uint64_t>(first) / rights_;
  uint64_t right = static_cast<uint64_t>(first) % rights_;
  size_t done = 0;
  for (; done + kLanes <= out.size(); done += kLanes) {
    Halves<kLanes> halves;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      halves.left[lane] = left;
      halves.right[lane] = right;
      const bool carry = ++right == rights_;
      left += carry ? 1 : 0;
      right = carry ? 0 : right;
    }
    run(halves, out.data() + done);
  }
  for (; done < out.size(); ++done) out[done] = at(first + static_cast<int64_t>(done));
}

void Permutation::apply(std::span<int64_t> values) const {
  size_t done = 0;
  if (!is_table()) {
    for (; done + kLanes <= values.size(); done += kLanes) {
      Halves<kLanes> halves;
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const auto index = static_cast<uint64_t>(values[done + lane]);
        halves.left[lane] = index / rights_;
        halves.right[lane] = index % rights_;
      }
      run(halves, values.data() + done);
    }
  }
  for (; done < values.size(); ++done) values[done] = at(values[done]);
}

}  // namespace s3io
