// Paths of objects, endpoints, and what a request is addressed to.
#include <doctest/doctest.h>

#include "http/url.h"
#include "scripted_transport.h"

namespace s3io::testing::http_url_test {

std::string encoded(std::string_view text, bool keeps_slashes = true) {
  std::string out;
  append_percent_encoded(out, text, keeps_slashes);
  return out;
}

TEST_CASE("a path names a bucket and a key, which is taken as it stands") {
  CHECK(parse_s3_path("s3://bucket/a/b.bin") == S3Path{"bucket", "a/b.bin"});
  CHECK(parse_s3_path("s3://bucket") == S3Path{"bucket", ""});
  CHECK(parse_s3_path("s3://my.bucket/") == S3Path{"my.bucket", ""});
  for (const char* key :
       {"/a", "a//b", "a?b#c", "a%20b", "../b", "a b+c=d&e", "\xf0\x9f\x8d\x80"}) {
    CHECK(parse_s3_path(std::string("s3://bucket/") + key).key == key);
  }
  CHECK(parse_s3_path("s3://bucket/" + std::string(1024, 'k')).key.size() == 1024);
}

TEST_CASE("what names no object is refused, with the path") {
  using std::literals::operator""s;
  for (const std::string& path :
       {""s, "bucket/key"s, "s3:/bucket/key"s, "S3://bucket/key"s, "s3://"s, "s3:///key"s,
        "s3://ab/key"s, "s3://..b/key"s, "s3://b$b/key"s, "s3://bu\0ket/k"s, "s3://bucket/a\0b"s,
        "s3://" + std::string(64, 'b'), "s3://bucket/" + std::string(1025, 'k')}) {
    CAPTURE(path);
    const Caught error = caught([&] { parse_s3_path(path); });
    CHECK(error.kind == ErrorKind::config);
    CHECK(error.says("s3://bucket/key"));
  }
}

TEST_CASE("endpoints are a scheme, a host and a port") {
  CHECK(parse_endpoint("http://127.0.0.1:9000") == Endpoint{false, "127.0.0.1", 9000});
  CHECK(parse_endpoint("https://storage.example.com/") == Endpoint{true, "storage.example.com", 0});
  CHECK(parse_endpoint("minio:9000") == Endpoint{true, "minio", 9000});
  CHECK(parse_endpoint("http://[::1]:9000") == Endpoint{false, "[::1]", 9000});
  CHECK(parse_endpoint("http://[fe80::1]") == Endpoint{false, "[fe80::1]", 0});
  CHECK(parse_endpoint("http://a:80").authority() == "a");
  CHECK(parse_endpoint("https://a:443").authority() == "a");
  CHECK(parse_endpoint("https://a:80").authority() == "a:80");
  CHECK(aws_endpoint("eu-central-1").authority() == "s3.eu-central-1.amazonaws.com");
  CHECK(aws_endpoint("cn-north-1").authority() == "s3.cn-north-1.amazonaws.com.cn");
}

TEST_CASE("other endpoints are refused, and a password in one is not repeated") {
  for (const char* text :
       {"", "http://", "ftp://host", "http://host/path", "http://host?x", "http://host#x",
        "http://host:0", "http://host:65536", "http://host:9a", "http://host:", "http://ho st",
        "http://[::1", "http://[]", "http://[::g]", "http://a\nb"}) {
    CAPTURE(text);
    CHECK(caught([&] { parse_endpoint(text); }).kind == ErrorKind::config);
  }
  const Caught error = caught([] { parse_endpoint("http://user:hunter2@host"); });
  CHECK(error.kind == ErrorKind::config);
  CHECK_FALSE(error.says("hunter2"));
  for (const char* region :
       {"", "eu central", "x.evil.com/", "a-region-that-is-far-too-long-for-one"}) {
    CHECK(caught([&] { aws_endpoint(region); }).kind == ErrorKind::config);
  }
}

// Of https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAPI.html and what Python's
// urllib.parse.quote(key, safe="/-_.~") says.
TEST_CASE("a bucket goes into the path, or before the host where it can") {
  const Endpoint aws = aws_endpoint("us-west-2");
  const Endpoint local = parse_endpoint("http://localhost:8333");
  S3Target target;
  address(aws, true, Addressing::automatic, {"bucket", "a b"}, target);
  CHECK(target.url == "https://bucket.s3.us-west-2.amazonaws.com/a%20b");
  CHECK(target.host == "bucket.s3.us-west-2.amazonaws.com");
  CHECK(target.path == "/a%20b");
  for (const char* bucket : {"my.bucket", "My_Bucket"}) {
    address(aws, true, Addressing::automatic, {bucket, ""}, target);
    CHECK(target.url == std::string("https://s3.us-west-2.amazonaws.com/") + bucket);
  }
  address(aws, true, Addressing::path, {"bucket", "/a//../b"}, target);
  CHECK(target.url == "https://s3.us-west-2.amazonaws.com/bucket//a//../b");
  address(local, false, Addressing::automatic, {"bucket", "k"}, target);
  CHECK(target.url == "http://localhost:8333/bucket/k");
  address(local, false, Addressing::virtual_host, {"bucket", ""}, target);
  CHECK(target.url == "http://bucket.localhost:8333/");
  address(parse_endpoint("http://storage1"), false, Addressing::virtual_host, {"a.b", ""}, target);
  CHECK(target.url == "http://a.b.storage1/");
  for (const char* bucket : {"My_Bucket", "a.b", "a_b"}) {
    const auto call = [&] { address(aws, true, Addressing::virtual_host, {bucket, ""}, target); };
    CHECK(caught(call).says("addressing=\"path\""));
  }
  for (const char* address_of_host : {"http://127.0.0.1:1", "http://[::1]:1"}) {
    const Endpoint endpoint = parse_endpoint(address_of_host);
    const auto call = [&] {
      address(endpoint, false, Addressing::virtual_host, {"bucket", ""}, target);
    };
    CHECK(caught(call).says("addressing=\"path\""));
  }
}

TEST_CASE("keys are encoded as S3 signs them, byte by byte") {
  CHECK(encoded("a/b c+d=e%f~g-h_i.j") == "a/b%20c%2Bd%3De%25f~g-h_i.j");
  CHECK(encoded("a/b", false) == "a%2Fb");
  CHECK(encoded("\xe2\x82\xac\x01\x7f!*'()") == "%E2%82%AC%01%7F%21%2A%27%28%29");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(percent_decoded(encoded(all)) == all);
}

}  // namespace s3io::testing::http_url_test
