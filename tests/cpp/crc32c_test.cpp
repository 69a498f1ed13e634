// CRC-32C against published values and against the definition, bit by bit.
#include "base/crc32c.h"

#include <doctest/doctest.h>

#include <numeric>

#include "testing.h"

namespace s3io::testing::crc32c_test {

Bytes text(const std::string& characters) {
  Bytes bytes;
  for (const char character : characters) bytes.push_back(static_cast<std::byte>(character));
  return bytes;
}

uint32_t bit_by_bit(const Bytes& bytes) {
  uint32_t state = ~0U;
  for (const std::byte byte : bytes) {
    state ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0x82F63B78U : 0);
  }
  return ~state;
}

TEST_CASE("the checksums of RFC 3720, appendix B.4") {
  Bytes counting(32);
  for (size_t index = 0; index < 32; ++index) counting[index] = static_cast<std::byte>(index);
  const Bytes falling(counting.rbegin(), counting.rend());
  for (const auto checksum : {crc32c, crc32c_by_tables}) {
    CHECK(checksum(0, Bytes(32, std::byte{0})) == 0x8A9136AA);
    CHECK(checksum(0, Bytes(32, std::byte{0xFF})) == 0x62A8AB43);
    CHECK(checksum(0, counting) == 0x46DD794E);
    CHECK(checksum(0, falling) == 0x113FDB5C);
    CHECK(checksum(0, text("123456789")) == 0xE3069283);
    CHECK(checksum(0, {}) == 0);
  }
}

TEST_CASE("any length, from any address, in any pieces, gives the checksum of the definition") {
  std::mt19937_64 random(3);
  for (const int64_t size : {1, 7, 8, 9, 63, 2047, 6143, 6144, 6145, 12'288, 50'001}) {
    const Bytes bytes = random_bytes(size + 3, static_cast<uint64_t>(size));
    const Bytes part(bytes.begin() + 3, bytes.end());
    const std::span<const std::byte> unaligned = std::span(bytes).subspan(3);
    const uint32_t expected = bit_by_bit(part);
    CHECK(crc32c(0, unaligned) == expected);
    CHECK(crc32c_by_tables(0, unaligned) == expected);
    const auto cut = static_cast<size_t>(random() % static_cast<uint64_t>(size));
    CHECK(crc32c(crc32c(0, unaligned.first(cut)), unaligned.subspan(cut)) == expected);
    const auto behind = unaligned.subspan(cut);
    CHECK(crc32c_of_both(crc32c(0, unaligned.first(cut)), crc32c(0, behind), std::ssize(behind)) ==
          expected);
  }
}

}  // namespace s3io::testing::crc32c_test
