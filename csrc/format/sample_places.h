// Where samples of any length go that are written one after the other, shard by shard.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace s3io {

// docs/format.md, Alignment. One thread at a time.
class SamplePlaces {
 public:
  struct Options {
    std::vector<int64_t> blocks;   // those to begin at where that is cheap, the largest one first
    int64_t most_padding_percent;  // of the bytes of all samples, so far and with the next one
    int64_t alignment;             // what each sample begins at a multiple of in any case
    int64_t shard_bytes;           // with the table
    int64_t index_bytes;           // of the table, for one sample
  };

  explicit SamplePlaces(Options options) : options_(std::move(options)) {}

  // Where the next samples begin in the shard, given the bytes of each: of as many as it has room
  // for; of one at least if it is empty.
  std::vector<int64_t> add(std::span<const int64_t> sizes);
  // The next sample is the first one of another shard.
  void begin_shard();

  int64_t end() const { return end_; }                // of the last sample in the shard
  int64_t data_bytes() const { return data_bytes_; }  // of all samples, without padding

 private:
  int64_t padding_before(int64_t size) const;

  Options options_;
  int64_t in_shard_ = 0;
  int64_t end_ = 0;
  int64_t data_bytes_ = 0;
  int64_t padding_bytes_ = 0;
};

}  // namespace s3io
