// The text in which a file keeps its checksum: what is written is read, and nothing else is.
#include "store/checksum_text.h"

#include <doctest/doctest.h>

#include <limits>

namespace s3io::testing::checksum_text_test {

TEST_CASE("what is written is read") {
  CHECK(checksum_text({1234, 0xab}) == "000000ab 1234");
  for (const FileChecksum& checksum : {FileChecksum{0, 0}, FileChecksum{1234, 0xab},
                                       FileChecksum{std::numeric_limits<int64_t>::max(), ~0u}}) {
    CHECK(parse_checksum(checksum_text(checksum)) == checksum);
  }
}

TEST_CASE("any other text is none") {
  for (const char* text :
       {"", " ", "000000ab", "000000ab ", "000000abx1234", "000000AB 1234", "0x0000ab 1234",
        "000000ab -1", "000000ab -0", "000000ab 01", "000000ab 1234 ", "000000ab  1",
        "000000ab 9223372036854775808", "00000ab 1234", "+00000ab 1234", "000000ab +1"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_checksum(text));
  }
}

}  // namespace s3io::testing::checksum_text_test
