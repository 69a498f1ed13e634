#include "format/placement.h"

#include <algorithm>
#include <cstring>

#include "base/align.h"

namespace s3io {
namespace {

bool are_contiguous(const RecordLayout& layout) {
  return layout.record_stride == layout.record_bytes;
}

void merge_neighbours(std::span<const int64_t> records, const ShardTable& shards,
                      const RecordLayout& layout, std::vector<Run>& runs) {
  runs.clear();
  int64_t shard = 0;
  int64_t expected = -1;
  for (const int64_t record : records) {
    const ShardTable::Location location = shards.locate(record, shard);
    if (record == expected && location.shard == shard) {
      runs.back().length += layout.record_stride;
      ++runs.back().rows;
    } else {
      const int64_t header = shards.shards()[static_cast<size_t>(location.shard)].header_bytes;
      runs.push_back({.shard = location.shard,
                      .file_offset = header + location.index * layout.record_stride,
                      .length = layout.record_bytes,
                      .rows = 1});
    }
    shard = location.shard;
    expected = record + 1;
  }
}

// Whether every record begins at the same position within a block.
bool have_one_residue(const std::vector<Run>& runs, const RecordLayout& layout, int64_t alignment) {
  const int64_t residue = runs.front().file_offset & (alignment - 1);
  return std::all_of(runs.begin(), runs.end(), [&](const Run& run) {
    return (run.file_offset & (alignment - 1)) == residue &&
           (run.rows == 1 || layout.record_stride % alignment == 0);
  });
}

void split_into_single_rows(const RecordLayout& layout, std::vector<Run>& runs) {
  int64_t total = 0;
  for (const Run& run : runs) total += run.rows;
  // From the back, so that it can be done in place.
  auto last = static_cast<int64_t>(runs.size()) - 1;
  runs.resize(static_cast<size_t>(total));
  int64_t target = total - 1;
  for (int64_t source = last; source >= 0; --source) {
    const Run run = runs[static_cast<size_t>(source)];
    for (int64_t row = run.rows - 1; row >= 0; --row, --target) {
      runs[static_cast<size_t>(target)] = {
          .shard = run.shard,
          .file_offset = run.file_offset + row * layout.record_stride,
          .length = layout.record_bytes,
          .rows = 1};
    }
  }
}

}  // namespace

void place_records(std::span<const int64_t> records, const ShardTable& shards,
                   const RecordLayout& layout, int64_t alignment, Placement& out) {
  merge_neighbours(records, shards, layout, out.runs);
  out.packs = false;
  out.row_stride = layout.record_stride;
  if (out.runs.size() > 1) {
    const bool one_residue = have_one_residue(out.runs, layout, alignment);
    const int64_t residue = out.runs.front().file_offset & (alignment - 1);
    const bool whole_blocks =
        residue == 0 && layout.record_bytes % alignment == 0 && are_contiguous(layout);
    // Rows of one run lie at the file's stride, rows of different runs do not: single rows do.
    if (!are_contiguous(layout) || (one_residue && !whole_blocks)) {
      split_into_single_rows(layout, out.runs);
    }
    out.packs = !one_residue;
    out.row_stride =
        one_residue ? align_up(residue + layout.record_bytes, alignment) : layout.record_bytes;
  }
  int64_t free = 0;
  for (Run& run : out.runs) {
    run.position = free + (run.file_offset & (alignment - 1));
    free = align_up(run.position + run.length, alignment);
  }
  out.first_row = out.runs.front().position;
}

int64_t max_landing_bytes(int64_t count, const RecordLayout& layout, int64_t alignment) {
  const int64_t one_run = (count - 1) * layout.record_stride + layout.record_bytes;
  const int64_t one_row = align_up(alignment - 1 + layout.record_bytes, alignment);
  return std::max(align_up(alignment - 1 + one_run, alignment), count * one_row);
}

int64_t pack_rows(const Placement& placement, const RecordLayout& layout, std::byte* landing) {
  // Rows move towards the front, in order, so a move never overwrites one that is still to come.
  int64_t moved = 0;
  int64_t target = placement.first_row;
  for (const Run& run : placement.runs) {
    const int64_t length = run.rows * layout.record_bytes;
    if (run.position != target) {
      std::memmove(landing + target, landing + run.position, static_cast<size_t>(length));
      moved += length;
    }
    target += length;
  }
  return moved;
}

}  // namespace s3io
