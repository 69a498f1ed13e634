// The one loop that waits for a RangeReader on behalf of a caller.
#pragma once

#include <utility>
#include <vector>

#include "io/range_reader.h"
#include "store/store.h"

namespace s3io {

// Runs the reader until `take_back`, which gets every range that is back, returns true: for the
// last one or an earlier one. `finished` is the caller's, so that nothing is allocated. Throws what
// `on_wait` throws, and Error(read_timeout) with the text of `late()` when for so long nothing at
// all came back: ranges are then in flight, and the reader is to be abandoned.
template <typename TakeBack, typename Late>
void run_until(RangeReader& reader, std::vector<RangeRead*>& finished, double timeout_s,
               const WaitCallback& on_wait, const TakeBack& take_back, const Late& late) {
  Clock::time_point deadline = deadline_after(timeout_s);
  int64_t completions_seen = reader.completions();
  while (true) {
    finished.clear();
    reader.run(finished, kWaitSlice);
    bool is_done = false;
    for (RangeRead* read : finished) is_done = take_back(*read) || is_done;
    if (is_done) return;
    if (on_wait) on_wait();
    const int64_t completions = reader.completions();
    if (std::exchange(completions_seen, completions) != completions) {
      deadline = deadline_after(timeout_s);
    }
    if (Clock::now() >= deadline) throw Error(ErrorKind::read_timeout, late());
  }
}

}  // namespace s3io
