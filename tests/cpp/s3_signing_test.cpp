// Signature Version 4 against what others publish: AWS's examples for S3, AWS's test suite of the
// signature (https://github.com/awslabs/aws-c-auth, tests/aws-signing-test-suite), RFC 4231.
#include <doctest/doctest.h>

#include "http/sigv4.h"
#include "testing.h"

namespace s3io::testing::s3_signing_test {

constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr int64_t kSuiteTime = 1440938160;     // 20150830T123600Z
constexpr int64_t kExamplesTime = 1369353600;  // 20130524T000000Z

std::string hash_of(std::string_view text) { return hex(sha256(std::as_bytes(std::span(text)))); }

std::string signature_of(Signer& signer, const RequestToSign& request,
                         const Credentials& credentials, int64_t time) {
  std::string authorization;
  signer.sign(request, credentials, "us-east-1", amz_date(time), authorization);
  return authorization.substr(authorization.find("Signature=") + 10);
}

TEST_CASE("digests are those of FIPS 180 and RFC 4231") {
  CHECK(hash_of("") == kEmptyHash);
  CHECK(hash_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string key = "Jefe";
  const auto bytes_of = [](const std::string& text) {
    return std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  };
  CHECK(hex(hmac_sha256(bytes_of(key), "what do ya want for nothing?")) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(hex(hmac_sha256(bytes_of(std::string(131, '\xaa')),
                        "Test Using Larger Than Block-Size Key - Hash Key First")) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST_CASE("times are written in UTC") {
  const auto text = [](int64_t time) {
    const AmzDate date = amz_date(time);
    return std::string(date.begin(), date.end());
  };
  CHECK(text(kSuiteTime) == "20150830T123600Z");
  CHECK(text(kExamplesTime) == "20130524T000000Z");
  CHECK(text(951782399) == "20000228T235959Z");
  CHECK(text(951782400) == "20000229T000000Z");
  CHECK(text(-1) == "19700101T000000Z");
  CHECK(text(std::numeric_limits<int64_t>::max()) == "99991231T235959Z");
}

TEST_CASE("AWS's examples for S3 are signed as AWS signs them") {
  const Credentials credentials{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                ""};
  const HttpHeader host{"host", "examplebucket.s3.amazonaws.com"};
  const HttpHeader date{"x-amz-date", "20130524T000000Z"};
  const HttpHeader empty{"x-amz-content-sha256", std::string(kEmptyHash)};
  const std::string text_hash = hash_of("Welcome to Amazon S3.");
  const std::vector<HttpHeader> plain{host, empty, date};
  const std::vector<HttpHeader> get{host, {"range", "bytes=0-9"}, empty, date};
  const std::vector<HttpHeader> put{{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                    host,
                                    {"x-amz-content-sha256", text_hash},
                                    date,
                                    {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
  Signer signer;
  const auto signature = [&](const RequestToSign& request) {
    return signature_of(signer, request, credentials, kExamplesTime);
  };
  CHECK(signature({"GET", "/test.txt", "", get, kEmptyHash}) ==
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  CHECK(signature({"PUT", "/test%24file.text", "", put, text_hash}) ==
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
  CHECK(signature({"GET", "/", "lifecycle=", plain, kEmptyHash}) ==
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  CHECK(signature({"GET", "/", "max-keys=2&prefix=J", plain, kEmptyHash}) ==
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

struct Vector {
  const char* name;
  RequestToSign request;
  const char* signature;
};

TEST_CASE("AWS's test suite of the signature") {
  const Credentials credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
  const HttpHeader host{"host", "example.amazonaws.com"};
  const HttpHeader date{"x-amz-date", "20150830T123600Z"};
  const std::vector<HttpHeader> plain{host, date};
  const std::vector<HttpHeader> trimmed{
      host, {"my-header1", " value1 "}, {"my-header2", " \"a   b   c\" "}, date};
  const std::vector<HttpHeader> with_token{
      host,
      date,
      {"x-amz-security-token",
       "AQoDYXdzEPT//////////"
       "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIe"
       "oIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
       "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq"
       "5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+"
       "scqKmlzm8FDrypNC"
       "9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="}};
  const Vector vectors[] = {
      {"get-vanilla",
       {"GET", "/", "", plain, kEmptyHash},
       "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"post-vanilla",
       {"POST", "/", "", plain, kEmptyHash},
       "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
      {"get-vanilla-query-order-key-case",
       {"GET", "/", "Param1=value1&Param2=value2", plain, kEmptyHash},
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"get-utf8",
       {"GET", "/%E1%88%B4", "", plain, kEmptyHash},
       "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
      {"get-header-value-trim",
       {"GET", "/", "", trimmed, kEmptyHash},
       "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
      {"post-sts-header-after",
       {"POST", "/", "", plain, kEmptyHash},
       "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
      {"post-sts-header-before",
       {"POST", "/", "", with_token, kEmptyHash},
       "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
  };
  Signer signer("service");
  for (const Vector& vector : vectors) {
    CAPTURE(vector.name);
    CHECK(signature_of(signer, vector.request, credentials, kSuiteTime) == vector.signature);
  }
  std::string authorization;
  signer.sign(vectors[0].request, credentials, "us-east-1", amz_date(kSuiteTime), authorization);
  CHECK(authorization ==
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=" +
            std::string(vectors[0].signature));
}

TEST_CASE("a key that was derived serves its own day, region and secret alone") {
  const HttpHeader host{"host", "example.amazonaws.com"};
  const RequestToSign request{"GET", "/", "", std::span(&host, 1), kUnsignedPayload};
  const auto sign = [&](Signer& signer, const char* secret, const char* region, int64_t time) {
    std::string authorization;
    signer.sign(request, {"key", secret, ""}, region, amz_date(time), authorization);
    return authorization;
  };
  Signer kept;
  std::mt19937_64 random(5);
  for (int round = 0; round < 40; ++round) {
    const char* secret = random() % 2 == 0 ? "one" : "two";
    const char* region = random() % 2 == 0 ? "here" : "there";
    const int64_t time = kSuiteTime + static_cast<int64_t>(random() % 3) * 86'400;
    Signer fresh;
    CHECK(sign(kept, secret, region, time) == sign(fresh, secret, region, time));
  }
}

}  // namespace s3io::testing::s3_signing_test
