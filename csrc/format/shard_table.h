// The objects of a data set in order, and where each of its records lies.
#pragma once

#include <cstdint>
#include <vector>

namespace s3io {

struct Shard {
  int64_t header_bytes = 0;  // where the first record begins
  int64_t num_records = 0;
};

class ShardTable {
 public:
  // Throws Error(config) for negative or overflowing numbers.
  explicit ShardTable(std::vector<Shard> shards);

  struct Location {
    int64_t shard = 0;
    int64_t index = 0;  // of the record within its shard
  };

  const std::vector<Shard>& shards() const { return shards_; }
  int64_t num_records() const { return first_record_.back(); }
  // `record` must exist. Cheap when it lies in the shard `near` or the next one.
  Location locate(int64_t record, int64_t near) const;

 private:
  bool holds(int64_t shard, int64_t record) const;

  std::vector<Shard> shards_;
  std::vector<int64_t> first_record_;  // one more than shards: the last is the total
};

}  // namespace s3io
