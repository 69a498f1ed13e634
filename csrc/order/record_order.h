// Which record comes when. An order says, for every epoch and position, the record's number; it is
// computed and not stored, so that an epoch of a billion records begins at once, at any position.
//
// Orders are immutable, and the same on every machine. They may be made before a fork and used
// after it, by any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace s3io {

// The order of one epoch. Any number of threads; lives on its own, without its RecordOrder.
class EpochOrder {
 public:
  EpochOrder() = default;
  EpochOrder(const EpochOrder&) = delete;
  EpochOrder& operator=(const EpochOrder&) = delete;
  virtual ~EpochOrder() = default;

  // out[i] = the record at position first + i. All positions are in [0, num_positions).
  virtual void records(int64_t first, std::span<int64_t> out) const = 0;
  // The same records in any order, neighbours together where that is known: for reading ahead.
  virtual void records_unordered(int64_t first, std::span<int64_t> out) const {
    records(first, out);
  }
};

class RecordOrder {
 public:
  // Numbers of positions and of records are at most this.
  static constexpr int64_t kMostPositions = int64_t{1} << 62;

  RecordOrder(const RecordOrder&) = delete;
  RecordOrder& operator=(const RecordOrder&) = delete;
  virtual ~RecordOrder() = default;

  // Positions of one epoch: the same for all epochs.
  int64_t num_positions() const { return num_positions_; }
  // Record numbers are less than this.
  int64_t num_records() const { return num_records_; }
  // Throws Error(config) for a negative number, and where an endless stream ends: mix_order.
  virtual std::unique_ptr<EpochOrder> epoch(int64_t number) const = 0;

 protected:
  // Throws Error(config) unless both are in [0, kMostPositions].
  RecordOrder(int64_t num_positions, int64_t num_records);
  // For `epoch`: throws Error(config) for a negative number.
  static void check_epoch(int64_t number);

 private:
  int64_t num_positions_;
  int64_t num_records_;
};

using RecordOrderPtr = std::shared_ptr<const RecordOrder>;

// The factories throw Error(config) for numbers that make no sense.

// Record p at position p.
RecordOrderPtr sequential_order(int64_t num_records);

// Every record once, in an order of its own in every epoch: a Permutation keyed by (seed, epoch).
RecordOrderPtr shuffled_order(int64_t num_records, uint64_t seed);

// Blocks of neighbouring records, in an order of their own in every epoch. Inside a block the
// records keep the order of the file, so that a block is one contiguous read. The last block has
// what remains, and comes anywhere.
RecordOrderPtr block_order(int64_t num_records, int64_t block_records, uint64_t seed);

// The positions of `order` mixed within windows of `window_positions`: what comes in a window is as
// there, but in an order of its own in every window and epoch. The last window has what remains.
//
// Cost: a small window's order (Permutation::kMostInTable) is made when the first of its positions
// is asked for, and kept until another one is.
RecordOrderPtr window_order(RecordOrderPtr order, int64_t window_positions, uint64_t seed);

// The same where every epoch's records are others: record r of `order`, of n, is e * n + r in epoch
// e. Numbers are less than `num_numbers`; epochs whose numbers are not throw Error(config).
RecordOrderPtr numbered_by_epoch(RecordOrderPtr order, int64_t num_numbers);

// One step from a view of records to what it is a view of: its record j is record offset + j there;
// with a permutation it is that permutation's value at offset + j.
struct ViewStage {
  struct Shuffle {
    int64_t size;
    uint64_t key;
  };
  int64_t offset = 0;
  int64_t count = 0;  // records of the view
  std::optional<Shuffle> permutation;
};

// An order of the records of a view, as records of what it is a view of. `order` numbers the
// records of the first stage's view, whose records are in turn records of the second stage's view,
// and so on: the innermost view, which was made last, comes first.
RecordOrderPtr select_order(RecordOrderPtr order, const std::vector<ViewStage>& stages);

struct MixPart {
  RecordOrderPtr order;
  int64_t first_record = 0;  // added to the part's record numbers
};

// A weighted mixture: an endless stream of positions, of which epoch e holds [e * epoch_positions,
// (e + 1) * epoch_positions). The stream is cut into blocks of mix_block_positions(weights). At the
// end of every block each part has had its share of the positions so far, less or more than one;
// within a block, who comes when is shuffled by (seed, block). A part's j-th turn takes the part's
// own position j mod its length, in its own epoch j / length: its records come in its order, each
// once before any comes again, also over the ends of the mixture's epochs.
//
// Weights count in proportion to their sum. Each is at least 1 and at least 1/65536 of the sum.
//
// Cost: a block is made when the first of its positions is asked for, and kept until another one
// is: O(1) per position in succession, O(mix_block_positions + parts) for a jump.
RecordOrderPtr mix_order(std::vector<MixPart> parts, const std::vector<int64_t>& weights,
                         uint64_t seed, int64_t epoch_positions);

// 1024, or the power of two at which the smallest weight still has one position in every block; at
// most 65536. Throws Error(config) for weights that mix_order refuses.
int64_t mix_block_positions(const std::vector<int64_t>& weights);

}  // namespace s3io
