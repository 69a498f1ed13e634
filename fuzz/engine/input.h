// What C++ targets share: numbers out of the bytes that libFuzzer mutates, and the end of a target
// that finds a wrong result.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace s3io::fuzz {

// Ends the program where something is not as it must be.
inline void require(bool is_right, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (is_right) return;
  std::fprintf(stderr, "%s:%d: wrong\n", file, line);
  std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : provider_(data, size) {}

  bool empty() { return provider_.remaining_bytes() == 0; }
  bool flag() { return provider_.ConsumeBool(); }
  // From `first` to `last`.
  int64_t between(int64_t first, int64_t last) {
    return provider_.ConsumeIntegralInRange<int64_t>(first, last);
  }
  uint64_t bits() { return provider_.ConsumeIntegral<uint64_t>(); }
  std::string text() { return provider_.ConsumeRandomLengthString(); }
  std::string rest() { return provider_.ConsumeRemainingBytesAsString(); }

  // Any number: mostly a small one, often one next to where arithmetic overflows.
  int64_t number() {
    switch (between(0, 5)) {
      case 0:
        return static_cast<int64_t>(bits());
      case 1: {
        const int64_t edge = kEdges[static_cast<size_t>(between(0, std::ssize(kEdges) - 1))];
        const auto shifted = static_cast<uint64_t>(edge) + static_cast<uint64_t>(between(-2, 2));
        return static_cast<int64_t>(shifted);
      }
      case 2:
        return between(-2, 70'000);
      default:
        return between(0, 40);
    }
  }

  std::vector<int64_t> numbers(int64_t most) {
    std::vector<int64_t> made(static_cast<size_t>(between(0, most)));
    for (int64_t& one : made) one = number();
    return made;
  }

 private:
  static constexpr int64_t kEdges[] = {
      0,
      256,
      4096,
      65536,
      int64_t{2} << 20,
      int64_t{1} << 31,
      int64_t{1} << 32,
      int64_t{1} << 40,
      int64_t{1} << 46,
      int64_t{1} << 61,
      int64_t{1} << 62,
      std::numeric_limits<int64_t>::max(),
      std::numeric_limits<int64_t>::min(),
  };

  FuzzedDataProvider provider_;
};

}  // namespace s3io::fuzz

// Every target is this function over an Input.
#define S3IO_FUZZ_TARGET(read)                                           \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) { \
    s3io::fuzz::Input input(data, n);                                    \
    read(input);                                                         \
    return 0;                                                            \
  }
