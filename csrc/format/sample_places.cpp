#include "format/sample_places.h"

#include "base/align.h"

namespace s3io {

std::vector<int64_t> SamplePlaces::add(std::span<const int64_t> sizes) {
  std::vector<int64_t> starts;
  starts.reserve(sizes.size());
  for (const int64_t size : sizes) {
    const int64_t padding = padding_before(size);
    const int64_t start = end_ + padding;
    const int64_t table_bytes = options_.index_bytes * (in_shard_ + 1);
    if (in_shard_ > 0 && start + size > options_.shard_bytes - table_bytes) break;
    starts.push_back(start);
    end_ = start + size;
    ++in_shard_;
    data_bytes_ += size;
    padding_bytes_ += padding;
  }
  return starts;
}

void SamplePlaces::begin_shard() { in_shard_ = end_ = 0; }

int64_t SamplePlaces::padding_before(int64_t size) const {
  const int64_t most = options_.most_padding_percent * (data_bytes_ + size);
  for (const int64_t block : options_.blocks) {
    const int64_t padding = align_up(end_, block) - end_;
    if (100 * (padding_bytes_ + padding) <= most) return padding;
  }
  return align_up(end_, options_.alignment) - end_;
}

}  // namespace s3io
