// ETags as the numbers of a version.
#include <doctest/doctest.h>

#include "http/etag.h"
#include "http/known_etags.h"

namespace s3io::testing::s3_etag_test {

const std::string kMd5 = "00000000000000000123456789abcdef";

TEST_CASE("an ETag of S3 can be made again from its version") {
  for (const std::string& etag : {kMd5, kMd5 + "-1", kMd5 + "-10000", std::string(32, 'f')}) {
    const ObjectVersion version = version_of(7, etag);
    CHECK(version.size_bytes == 7);
    CHECK(version.modified_ns == etag_number(etag));
    CHECK(etag_of(version) == etag);
  }
}

TEST_CASE("another text cannot, and has a number of its own") {
  for (const std::string& etag :
       {std::string(), std::string("version-1"), kMd5 + "-0", kMd5 + "-01", kMd5 + "-10001",
        kMd5 + "_1", kMd5 + "-", kMd5 + "0", std::string(32, 'F'), kMd5.substr(1)}) {
    const ObjectVersion version = version_of(7, etag);
    CHECK(version == ObjectVersion{.size_bytes = 7, .modified_ns = etag_number(etag)});
    CHECK(version.modified_ns >= 0);
    CHECK(etag_of(version).empty());
    CHECK(etag_number(etag) != etag_number(etag + "x"));
  }
}

TEST_CASE("a version that has lost a part of its numbers makes no other ETag") {
  ObjectVersion version = version_of(7, std::string(32, 'a') + "-3");
  version.inode = 0;
  CHECK(etag_of(version).empty());
}

TEST_CASE("of two ETags that have one number none is known") {
  const std::string one = "version-668635", other = "version-26007973";  // found by search
  const int64_t number = etag_number(one);
  REQUIRE(etag_number(other) == number);
  KnownEtags known;
  for (int time = 0; time < 2; ++time) {
    known.add(one);
    CHECK(known.find(number) == one);
  }
  known.add('"' + other + '"');
  CHECK(known.find(number).empty());
  known.add(one);  // however often it comes
  CHECK(known.find(number).empty());
}

}  // namespace s3io::testing::s3_etag_test
