// Monotonic time for deadlines and for the waiting times that the statistics report.
#pragma once

#include <chrono>
#include <cstdint>

namespace s3io {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// Longest single sleep anywhere: an interrupt, a stop request or a dead peer is noticed within it.
inline constexpr milliseconds kWaitSlice{50};
// How long who gives up waits for what is in flight, before its memory is left behind.
inline constexpr milliseconds kAbandonTimeout{1000};

inline int64_t nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<nanoseconds>(Clock::now() - start).count();
}

// `seconds` from now; a very long time is cut to a year, so that arithmetic cannot overflow.
inline Clock::time_point deadline_after(double seconds) {
  constexpr double kYear = 365.0 * 24 * 3600;
  const double bounded = seconds < kYear ? seconds : kYear;
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(bounded > 0 ? bounded : 0));
}

}  // namespace s3io
