// Where records of any files land: refused, or every record lies in the buffer, no read writes over
// another one, and the rows are the records that were asked for.
#include "format/placement.h"

#include <algorithm>

#include "base/align.h"
#include "engine/input.h"

namespace s3io::fuzz {
namespace {

constexpr int64_t kMostLanding = 1 << 16;

// What a file holds at an offset: different at most places.
std::byte content(int64_t shard, int64_t offset) {
  const auto mixed =
      (static_cast<uint64_t>(offset) + static_cast<uint64_t>(shard) * 977) * 2654435761u;
  return static_cast<std::byte>(mixed >> 16);
}

// Reads every run as a direct read does: whole blocks, some of which nobody asked for.
std::vector<std::byte> landed(const Placement& placement, int64_t alignment, int64_t size) {
  std::vector<std::byte> landing(static_cast<size_t>(size));
  std::vector<bool> is_written(landing.size());
  for (const Run& run : placement.runs) {
    require(run.length > 0 && run.position >= 0);
    require(((run.offset - run.position) & (alignment - 1)) == 0);
    const int64_t begin = align_down(run.position, alignment);
    const int64_t end = align_up(run.position + run.length, alignment);
    require(end <= size);
    for (int64_t at = begin; at < end; ++at) {
      require(!is_written[static_cast<size_t>(at)]);
      is_written[static_cast<size_t>(at)] = true;
      landing[static_cast<size_t>(at)] = content(run.object, run.offset + at - run.position);
    }
  }
  return landing;
}

void check_rows(const std::vector<int64_t>& records, const ShardTable& shards,
                const RecordLayout& layout, int64_t alignment, Placement& placement) {
  const int64_t size = max_landing_bytes(std::ssize(records), layout, alignment);
  if (size > kMostLanding) return;
  std::vector<std::byte> landing = landed(placement, alignment, size);
  if (placement.packs) pack_rows(placement, layout, landing.data());
  for (size_t row = 0; row < records.size(); ++row) {
    const auto [shard, index] = shards.locate(records[row], 0);
    const int64_t offset =
        shards.shards()[static_cast<size_t>(shard)].header_bytes + index * layout.record_stride;
    const int64_t begin = placement.first_row + static_cast<int64_t>(row) * placement.row_stride;
    require(begin >= 0 && begin + layout.record_bytes <= size);
    for (int64_t byte = 0; byte < layout.record_bytes; ++byte) {
      require(landing[static_cast<size_t>(begin + byte)] == content(shard, offset + byte));
    }
  }
}

ShardTable any_shards(Input& input) {
  std::vector<Shard> shards(static_cast<size_t>(input.between(1, 5)));
  for (Shard& shard : shards) {
    shard.header_bytes = input.number();
    shard.num_records = input.number();
  }
  return ShardTable(std::move(shards));
}

void read(Input& input) {
  RecordLayout layout;
  layout.fields.emplace_back();
  layout.record_bytes = input.number();
  layout.record_stride = input.flag() ? layout.record_bytes : input.number();
  const int64_t alignment = int64_t{1} << input.between(0, input.flag() ? 21 : 6);
  try {
    layout.validate();
    const ShardTable shards = any_shards(input);
    check_offsets(shards, layout,
                  ObjectNames(std::vector<std::string>(shards.shards().size(), "object")));
    if (shards.num_records() == 0) return;
    std::vector<int64_t> records;
    while (records.empty() || (records.size() < 64 && !input.empty())) {
      const bool is_next = !records.empty() && records.back() + 1 < shards.num_records();
      records.push_back(is_next && input.flag() ? records.back() + 1
                                                : input.between(0, shards.num_records() - 1));
    }
    Placement placement;
    place_records(records, shards, layout, alignment, placement);
    check_rows(records, shards, layout, alignment, placement);
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::config);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
