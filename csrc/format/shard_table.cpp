#include "format/shard_table.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace s3io {

ShardTable::ShardTable(std::vector<Shard> shards) : shards_(std::move(shards)) {
  first_record_.reserve(shards_.size() + 1);
  int64_t total = 0;
  for (size_t number = 0; number < shards_.size(); ++number) {
    const Shard& shard = shards_[number];
    if (shard.num_records < 0 || shard.header_bytes < 0 ||
        shard.num_records > std::numeric_limits<int64_t>::max() - total) {
      throw Error(ErrorKind::config,
                  message("shard ", number, ": ", shard.num_records, " records after ",
                          shard.header_bytes, " header bytes cannot be"));
    }
    first_record_.push_back(total);
    total += shard.num_records;
  }
  first_record_.push_back(total);
}

bool ShardTable::holds(int64_t shard, int64_t record) const {
  const auto index = static_cast<size_t>(shard);
  return first_record_[index] <= record && record < first_record_[index + 1];
}

ShardTable::Location ShardTable::locate(int64_t record, int64_t near) const {
  const auto count = static_cast<int64_t>(shards_.size());
  int64_t shard = near;
  if (near + 1 < count && holds(near + 1, record)) shard = near + 1;
  if (!holds(shard, record)) {
    const auto above = std::upper_bound(first_record_.begin(), first_record_.end(), record);
    shard = above - first_record_.begin() - 1;
  }
  return {shard, record - first_record_[static_cast<size_t>(shard)]};
}

}  // namespace s3io
