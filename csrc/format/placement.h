// Where the records of a batch land in a buffer, so that direct reads can go there and a tensor can
// view them. Bytes and offsets only, no I/O.
//
// A direct read needs buffer and file positions congruent modulo the alignment, and writes whole
// blocks, so two reads must not share a block. Records are therefore read in runs of neighbours,
// each run in blocks of its own. Four cases:
//   1. One run: viewed where it lands, at the file's own stride.
//   2. All records begin at the same position within a block (every file of one record, records of
//      whole blocks): each lands in blocks of its own, at equal distances: viewed there.
//   3. Otherwise the rows do not lie at equal distances. After the reads, rows are moved down to
//      lie packed behind the first one: the one copy this library makes of records, counted.
//   4. Records in any order of which many share or touch blocks: they land sorted, in runs of all
//      that touch, where that at least halves the number of reads. Then they are packed as in 3 and
//      put in order, where they lie.
// Whatever the case, reads are submitted in the order of objects and offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "format/extent.h"
#include "format/object_names.h"
#include "format/record_layout.h"
#include "format/shard_table.h"

namespace s3io {

struct Placement {
  std::vector<Run> runs;        // as they land
  std::vector<uint32_t> order;  // indices of `runs` by objects and offsets
  int64_t first_row = 0;        // position of row 0
  int64_t row_stride = 0;       // bytes from row to row, once packed where `packs`
  bool packs = false;           // cases 3 and 4: `pack_rows` must run before rows are used
  bool is_sorted = false;       // case 4

  // Case 4: the rows by record number, and where they land. Case 2 and 3 leave them in any state.
  std::vector<std::pair<int64_t, uint32_t>> sorted;  // (record, row)
  std::vector<int64_t> sorted_positions;
  std::vector<std::byte> spare_row;
};

// Throws Error(config) for objects so long that offsets in them would overflow.
void check_offsets(const ShardTable& shards, const RecordLayout& layout, const ObjectNames& paths);

// Places `records`, which must exist, in order. Reuses the memory of `out`.
void place_records(std::span<const int64_t> records, const ShardTable& shards,
                   const RecordLayout& layout, int64_t alignment, Placement& out);

// Bytes that no placement of `count` records exceeds.
int64_t max_landing_bytes(int64_t count, const RecordLayout& layout, int64_t alignment);

// Moves the rows of a placement that `packs` to where it says. Returns the bytes moved.
int64_t pack_rows(Placement& placement, const RecordLayout& layout, std::byte* landing);

}  // namespace s3io
