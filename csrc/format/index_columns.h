// Whether the columns of an index of tokens hold together: one pass over each. They may lie at any
// address, as those of a mapped file do.
#pragma once

#include <cstddef>
#include <cstdint>

namespace s3io {

// What is wrong with sequences that should lie one after the other.
struct SequenceCheck {
  int64_t too_long = -1;   // the first with 2^31 tokens or more; those behind it were not looked at
  int64_t displaced = -1;  // the first that does not begin where the one before it ends
  uint64_t end_bytes = 0;  // of all together
  bool is_endless = false;  // they have more bytes than any file; not all were looked at
};

// lengths: uint32 [count], in tokens of `token_bytes`; offsets: uint64 [count], in bytes.
SequenceCheck check_sequences(const std::byte* lengths, const std::byte* offsets, int64_t count,
                              int64_t token_bytes);

// Whether the numbers, uint64 [count], are 0, 1, 2, ...
bool counts_up(const std::byte* numbers, int64_t count);

struct LengthSum {
  uint64_t total = 0;  // the largest number there is, where it would be more
  uint64_t longest = 0;
};

// lengths: uint32 or, wide, uint64 [count].
LengthSum sum_lengths(const std::byte* lengths, int64_t count, bool are_wide);

}  // namespace s3io
