#include "format/placement.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/align.h"
#include "base/error.h"

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
      runs.push_back({.object = location.shard,
                      .offset = header + location.index * layout.record_stride,
                      .length = layout.record_bytes,
                      .rows = 1});
    }
    shard = location.shard;
    expected = record + 1;
  }
}

// Whether every record begins at the same position within a block.
bool have_one_residue(const std::vector<Run>& runs, const RecordLayout& layout, int64_t alignment) {
  const int64_t residue = runs.front().offset & (alignment - 1);
  return std::all_of(runs.begin(), runs.end(), [&](const Run& run) {
    return (run.offset & (alignment - 1)) == residue &&
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
      runs[static_cast<size_t>(target)] = {.object = run.object,
                                           .offset = run.offset + row * layout.record_stride,
                                           .length = layout.record_bytes,
                                           .rows = 1};
    }
  }
}

// Sorted by record number, rows that lie in the same or in touching blocks become one run. Its
// blocks are the union of theirs, so that it takes no more room than they would apart.
void merge_touching(std::span<const int64_t> records, const ShardTable& shards,
                    const RecordLayout& layout, int64_t alignment, Placement& out) {
  out.sorted.clear();
  for (const int64_t record : records) {
    out.sorted.emplace_back(record, static_cast<uint32_t>(out.sorted.size()));
  }
  std::sort(out.sorted.begin(), out.sorted.end());
  out.runs.clear();
  out.sorted_positions.clear();
  int64_t shard = 0;
  int64_t free = 0;
  for (const auto& [record, row] : out.sorted) {
    const ShardTable::Location location = shards.locate(record, shard);
    const int64_t header = shards.shards()[static_cast<size_t>(location.shard)].header_bytes;
    const int64_t offset = header + location.index * layout.record_stride;
    Run* run = out.runs.empty() ? nullptr : &out.runs.back();
    const int64_t run_end = run == nullptr ? 0 : run->offset + run->length;
    const bool touches = run != nullptr && location.shard == shard && offset >= run_end &&
                         align_down(offset, alignment) <= align_up(run_end, alignment);
    if (!touches) {
      out.runs.push_back({.object = location.shard,
                          .offset = offset,
                          .position = free + (offset & (alignment - 1))});
      run = &out.runs.back();
    }
    run->length = offset + layout.record_bytes - run->offset;
    ++run->rows;
    out.sorted_positions.push_back(run->position + offset - run->offset);
    free = align_up(run->position + run->length, alignment);
    shard = location.shard;
  }
}

void sort_by_object(Placement& out) {
  out.order.resize(out.runs.size());
  std::iota(out.order.begin(), out.order.end(), 0);
  const auto place = [&](uint32_t index) {
    const Run& run = out.runs[index];
    return std::pair(run.object, run.offset);
  };
  const auto before = [&](uint32_t a, uint32_t b) { return place(a) < place(b); };
  if (!std::is_sorted(out.order.begin(), out.order.end(), before)) {
    std::sort(out.order.begin(), out.order.end(), before);
  }
}

// Lets runs land one after the other, each in blocks of its own.
void place_in_order(const RecordLayout& layout, int64_t alignment, Placement& out) {
  out.packs = false;
  out.row_stride = layout.record_stride;
  if (out.runs.size() > 1) {
    const bool one_residue = have_one_residue(out.runs, layout, alignment);
    const int64_t residue = out.runs.front().offset & (alignment - 1);
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
    run.position = free + (run.offset & (alignment - 1));
    free = align_up(run.position + run.length, alignment);
  }
}

int64_t move_row(std::byte* landing, int64_t target, int64_t source, int64_t length) {
  if (target == source) return 0;
  std::memmove(landing + target, landing + source, static_cast<size_t>(length));
  return length;
}

// Rows move towards the front, in order, so a move never overwrites one that is still to come.
int64_t pack_runs(const Placement& placement, int64_t record_bytes, std::byte* landing) {
  int64_t moved = 0;
  int64_t target = placement.first_row;
  for (const Run& run : placement.runs) {
    const int64_t length = run.rows * record_bytes;
    moved += move_row(landing, target, run.position, length);
    target += length;
  }
  return moved;
}

int64_t pack_sorted(const Placement& placement, int64_t record_bytes, std::byte* landing) {
  int64_t moved = 0;
  int64_t target = placement.first_row;
  for (const int64_t position : placement.sorted_positions) {
    moved += move_row(landing, target, position, record_bytes);
    target += record_bytes;
  }
  return moved;
}

// Packed rows, sorted by record number, go to the rows of the batch: around each cycle of that
// permutation, with one row kept aside.
int64_t put_in_order(Placement& placement, int64_t record_bytes, std::byte* landing) {
  const auto bytes = static_cast<size_t>(record_bytes);
  std::byte* rows = landing + placement.first_row;
  const auto row = [&](uint32_t number) {
    return rows + static_cast<int64_t>(number) * record_bytes;
  };
  std::vector<std::pair<int64_t, uint32_t>>& sorted = placement.sorted;
  // source_of(target): the inverse of `sorted`, written over the record numbers.
  for (uint32_t from = 0; from < sorted.size(); ++from) sorted[sorted[from].second].first = from;
  placement.spare_row.resize(bytes);
  int64_t moved = 0;
  for (uint32_t start = 0; start < sorted.size(); ++start) {
    if (sorted[start].first == start) continue;
    std::memcpy(placement.spare_row.data(), row(start), bytes);
    uint32_t target = start;
    while (true) {
      const auto source = static_cast<uint32_t>(std::exchange(sorted[target].first, target));
      moved += record_bytes;
      if (source == start) break;
      std::memcpy(row(target), row(source), bytes);
      target = source;
    }
    std::memcpy(row(target), placement.spare_row.data(), bytes);
    moved += record_bytes;
  }
  return moved;
}

}  // namespace

void check_offsets(const ShardTable& shards, const RecordLayout& layout, const ObjectNames& paths) {
  constexpr int64_t kMostBytes = int64_t{1} << 62;
  for (size_t number = 0; number < shards.shards().size(); ++number) {
    const Shard& shard = shards.shards()[number];
    const int64_t left = kMostBytes - shard.header_bytes - layout.record_bytes;
    if (left < 0 || shard.num_records > left / layout.record_stride) {
      throw Error(ErrorKind::config,
                  message(paths[static_cast<int64_t>(number)], ": ", shard.num_records,
                          " records every ", layout.record_stride, " bytes after ",
                          shard.header_bytes, " header bytes are more than 2^62 bytes"));
    }
  }
}

void place_records(std::span<const int64_t> records, const ShardTable& shards,
                   const RecordLayout& layout, int64_t alignment, Placement& out) {
  merge_neighbours(records, shards, layout, out.runs);
  const size_t reads = out.runs.size();
  out.is_sorted = false;
  if (alignment > 1 && reads > 1) {
    merge_touching(records, shards, layout, alignment, out);
    out.is_sorted = out.runs.size() * 2 <= reads;
    if (!out.is_sorted) merge_neighbours(records, shards, layout, out.runs);
  }
  if (out.is_sorted) {
    out.packs = true;
    out.row_stride = layout.record_bytes;
  } else {
    place_in_order(layout, alignment, out);
  }
  out.first_row = out.runs.front().position;
  sort_by_object(out);
}

int64_t max_landing_bytes(int64_t count, const RecordLayout& layout, int64_t alignment) {
  const int64_t one_run = (count - 1) * layout.record_stride + layout.record_bytes;
  const int64_t one_row = align_up(alignment - 1 + layout.record_bytes, alignment);
  return std::max(align_up(alignment - 1 + one_run, alignment), count * one_row);
}

int64_t pack_rows(Placement& placement, const RecordLayout& layout, std::byte* landing) {
  if (!placement.is_sorted) return pack_runs(placement, layout.record_bytes, landing);
  return pack_sorted(placement, layout.record_bytes, landing) +
         put_in_order(placement, layout.record_bytes, landing);
}

}  // namespace s3io
