#include "base/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

namespace s3io {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kPolynomial = 0x82F63B78;  // 0x1EDC6F41 with its bits reversed
constexpr size_t kWordBytes = 8;

using Table = std::array<uint32_t, 256>;
using Tables = std::array<Table, kWordBytes>;

// tables[k][b]: what the byte b contributes when k zero bytes follow it.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = state;
  }
  for (size_t zeros = 1; zeros < kWordBytes; ++zeros) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[zeros - 1][byte];
      tables[zeros][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

uint64_t load_word(const std::byte* data) {
  uint64_t word = 0;
  std::memcpy(&word, data, kWordBytes);
  return word;
}

// These work on the state: the checksum with all bits inverted.
uint32_t add_byte(uint32_t state, std::byte byte) {
  return (state >> 8) ^ kTables[0][(state ^ static_cast<uint32_t>(byte)) & 0xFF];
}

uint32_t update_by_tables(uint32_t state, const std::byte* data, size_t size) {
  for (; size >= kWordBytes; data += kWordBytes, size -= kWordBytes) {
    uint64_t word = load_word(data) ^ state;
    state = 0;
    for (size_t zeros = kWordBytes; zeros-- > 0; word >>= 8) state ^= kTables[zeros][word & 0xFF];
  }
  for (; size > 0; ++data, --size) state = add_byte(state, *data);
  return state;
}

#if defined(__x86_64__) || defined(__aarch64__)

#if defined(__x86_64__)
#define S3IO_CRC_TARGET __attribute__((target("sse4.2")))
constexpr const char* kInstruction = "sse4.2";
bool has_instruction() { return __builtin_cpu_supports("sse4.2") != 0; }
S3IO_CRC_TARGET inline uint64_t add_word(uint64_t state, uint64_t word) {
  return _mm_crc32_u64(state, word);
}
#else
#define S3IO_CRC_TARGET __attribute__((target("+crc")))
constexpr const char* kInstruction = "armv8";
bool has_instruction() {
  constexpr unsigned long kCrc32 = 1UL << 7;  // HWCAP_CRC32
  return (::getauxval(AT_HWCAP) & kCrc32) != 0;
}
S3IO_CRC_TARGET inline uint64_t add_word(uint64_t state, uint64_t word) {
  return __crc32cd(static_cast<uint32_t>(state), word);
}
#endif

// The instruction has a latency of three cycles and can begin one every cycle: three lanes next to
// each other are three times as fast as one. Their states are then joined: that of a lane is
// carried over the zero bytes of the next one by a table.
constexpr size_t kLaneBytes = 2048;
constexpr size_t kShortLaneBytes = 256;  // for what is shorter than three of those
constexpr size_t kStateBytes = sizeof(uint32_t);

using Shift = std::array<Table, kStateBytes>;

// What each byte of a state becomes after so many zero bytes.
Shift make_shift(size_t lane_bytes) {
  std::array<uint32_t, 32> of_bit{};
  for (size_t bit = 0; bit < of_bit.size(); ++bit) {
    uint32_t state = uint32_t{1} << bit;
    for (size_t zeros = 0; zeros < lane_bytes; ++zeros) state = add_byte(state, std::byte{0});
    of_bit[bit] = state;
  }
  Shift shift{};
  for (size_t position = 0; position < kStateBytes; ++position) {
    for (size_t byte = 0; byte < 256; ++byte) {
      for (size_t bit = 0; bit < 8; ++bit) {
        if ((byte >> bit & 1) != 0) shift[position][byte] ^= of_bit[position * 8 + bit];
      }
    }
  }
  return shift;
}

uint64_t over_a_lane(const Shift& shift, uint64_t state) {
  uint32_t shifted = 0;
  for (size_t position = 0; position < kStateBytes; ++position) {
    shifted ^= shift[position][state >> (8 * position) & 0xFF];
  }
  return shifted;
}

// Takes what fills three lanes from the front of the data, again and again.
template <size_t lane_bytes>
S3IO_CRC_TARGET uint64_t update_by_lanes(uint64_t state, std::span<const std::byte>& data) {
  static const Shift shift = make_shift(lane_bytes);
  for (; data.size() >= 3 * lane_bytes; data = data.subspan(3 * lane_bytes)) {
    const std::byte* first = data.data();
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t at = 0; at < lane_bytes; at += kWordBytes) {
      state = add_word(state, load_word(first + at));
      second = add_word(second, load_word(first + lane_bytes + at));
      third = add_word(third, load_word(first + 2 * lane_bytes + at));
    }
    state = over_a_lane(shift, over_a_lane(shift, state) ^ second) ^ third;
  }
  return state;
}

S3IO_CRC_TARGET uint32_t update_by_instruction(uint32_t begin, const std::byte* bytes,
                                               size_t size) {
  std::span<const std::byte> data(bytes, size);
  uint64_t state = update_by_lanes<kLaneBytes>(begin, data);
  state = update_by_lanes<kShortLaneBytes>(state, data);
  for (; data.size() >= kWordBytes; data = data.subspan(kWordBytes)) {
    state = add_word(state, load_word(data.data()));
  }
  auto rest = static_cast<uint32_t>(state);
  for (const std::byte byte : data) rest = add_byte(rest, byte);
  return rest;
}

#else

constexpr const char* kInstruction = "";
bool has_instruction() { return false; }
uint32_t update_by_instruction(uint32_t state, const std::byte* data, size_t size) {
  return update_by_tables(state, data, size);
}

#endif

// The product of two polynomials over two elements, modulo that of the checksum. The highest bit is
// the coefficient of 1, the lowest one that of x^31.
uint32_t product(uint32_t one, uint32_t other) {
  uint32_t sum = 0;
  for (uint32_t bit = uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if ((one & bit) != 0) sum ^= other;
    other = (other >> 1) ^ ((other & 1) != 0 ? kPolynomial : 0);
  }
  return sum;
}

bool uses_instruction() {
  static const bool uses = has_instruction();
  return uses;
}

}  // namespace

uint32_t crc32c(uint32_t crc, std::span<const std::byte> data) {
  const auto update = uses_instruction() ? update_by_instruction : update_by_tables;
  return ~update(~crc, data.data(), data.size());
}

uint32_t crc32c_by_tables(uint32_t crc, std::span<const std::byte> data) {
  return ~update_by_tables(~crc, data.data(), data.size());
}

// Each byte behind the first part multiplies its checksum by x^8.
uint32_t crc32c_of_both(uint32_t first, uint32_t second, int64_t second_bytes) {
  uint32_t power = uint32_t{1} << 23;  // x^8, then its square, ...
  for (auto left = static_cast<uint64_t>(second_bytes); left != 0; left >>= 1) {
    if ((left & 1) != 0) first = product(power, first);
    power = product(power, power);
  }
  return first ^ second;
}

const char* crc32c_method() { return uses_instruction() ? kInstruction : "tables"; }

}  // namespace s3io
