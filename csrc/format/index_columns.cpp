#include "format/index_columns.h"

#include <algorithm>
#include <limits>

#include "format/column.h"

namespace s3io {
namespace {

constexpr uint64_t kMostSequenceBytes = uint64_t{1} << 60;

template <class Length>
LengthSum sum_of_column(const std::byte* lengths, int64_t count) {
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  LengthSum sum;
  bool overflows = false;
  for (int64_t index = 0; index < count; ++index) {
    const uint64_t length = number_at<Length>(lengths, index);
    sum.longest = std::max(sum.longest, length);
    overflows |= length > kMost - sum.total;
    sum.total += length;
  }
  if (overflows) sum.total = kMost;
  return sum;
}

}  // namespace

SequenceCheck check_sequences(const std::byte* lengths, const std::byte* offsets, int64_t count,
                              int64_t token_bytes) {
  SequenceCheck check;
  for (int64_t index = 0; index < count; ++index) {
    const uint64_t length = number_at<uint32_t>(lengths, index);
    if (length >= uint64_t{1} << 31) {
      check.too_long = index;
      return check;
    }
    if (number_at<uint64_t>(offsets, index) != check.end_bytes && check.displaced < 0) {
      check.displaced = index;
    }
    check.end_bytes += length * static_cast<uint64_t>(token_bytes);
    if (check.end_bytes > kMostSequenceBytes) {
      check.is_endless = true;
      return check;
    }
  }
  return check;
}

bool counts_up(const std::byte* numbers, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    if (number_at<uint64_t>(numbers, index) != static_cast<uint64_t>(index)) return false;
  }
  return true;
}

LengthSum sum_lengths(const std::byte* lengths, int64_t count, bool are_wide) {
  return are_wide ? sum_of_column<uint64_t>(lengths, count)
                  : sum_of_column<uint32_t>(lengths, count);
}

}  // namespace s3io
