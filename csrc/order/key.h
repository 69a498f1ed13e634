// Keys: the 64 bits that decide an order, derived from a seed and a path of numbers.
//
// The same on every machine, build and version: unsigned 64-bit arithmetic alone.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

namespace s3io {

// The first number of every path, so that no two uses of one seed have a key in common.
enum class KeyPurpose : uint64_t {
  records = 1,       // shuffled order: {records, epoch}
  blocks = 2,        // order of blocks: {blocks, epoch}
  mixture = 3,       // which data set of a mixture comes when: {mixture, block}
  split = 4,         // which record belongs to which part of a split: {split}
  augmentation = 5,  // a record's own random numbers: {augmentation, epoch, record}
  windows = 6,       // order within a window: {windows, epoch, window}
  documents = 7,     // blocks of documents: {documents, epoch}; in one: {documents, epoch, block}
};

// A bijection of 64-bit words in which every bit of the input changes half of the output's bits:
// the output function of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
// generators", OOPSLA 2014), with the constants of Stafford's "variant 13".
constexpr uint64_t mix64(uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  return word ^ (word >> 31);
}

// A key for each path under `seed`. Order and length of the path matter; for a given rest of the
// path, different numbers give different keys.
constexpr uint64_t derive_key(uint64_t seed, std::span<const uint64_t> path) {
  constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;  // 2^64 / phi, odd: SplitMix64's step
  constexpr uint64_t kSilverRatio = 0x6a09e667f3bcc909;  // 2^64 (sqrt(2) - 1), odd
  uint64_t key = mix64(seed + kGoldenRatio);
  for (const uint64_t number : path)
    key = mix64((key ^ mix64(number + kSilverRatio)) + kGoldenRatio);
  return key;
}

constexpr uint64_t derive_key(uint64_t seed, std::initializer_list<uint64_t> path) {
  return derive_key(seed, std::span(path.begin(), path.size()));
}

constexpr uint64_t derive_key(uint64_t seed, KeyPurpose purpose, int64_t index) {
  return derive_key(seed, {static_cast<uint64_t>(purpose), static_cast<uint64_t>(index)});
}

// Brings random 64 bits into [0, bound) by a multiplication; the probabilities of two values differ
// by a factor of at most 1 + bound / 2^64. (Lemire, "Fast random integer generation in an
// interval", ACM TOMACS 29, 2019, without its rejection step.)
constexpr uint64_t scale_to(uint64_t random, uint64_t bound) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((Wide{random} * bound) >> 64);
}

// The random numbers of a key, one after the other: SplitMix64.
class KeyedRandom {
 public:
  constexpr explicit KeyedRandom(uint64_t key) : state_(key) {}
  constexpr uint64_t below(uint64_t bound) {
    state_ += 0x9e3779b97f4a7c15;
    return scale_to(mix64(state_), bound);
  }

 private:
  uint64_t state_;
};

// Fisher and Yates' shuffle, in Durstenfeld's form (CACM 7, 1964): every order is equally likely.
template <typename Value>
constexpr void shuffle(std::span<Value> values, uint64_t key) {
  KeyedRandom random(key);
  for (size_t left = values.size(); left > 1; --left) {
    const auto chosen = static_cast<size_t>(random.below(left));
    const Value value = values[chosen];
    values[chosen] = values[left - 1];
    values[left - 1] = value;
  }
}

}  // namespace s3io
