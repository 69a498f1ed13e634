// Status lines and headers, and which replies may be stored as a range of an object.
#include <doctest/doctest.h>

#include "http/etag.h"
#include "http/response_head.h"
#include "testing.h"

namespace s3io::testing::http_head_test {

const std::string kGood =
    "HTTP/1.1 206 Partial Content\r\nETag: \"abc-2\"\r\nContent-Length: 10\r\n"
    "Content-Range: bytes 5-14/100\r\nx-amz-request-id: 4442587FB7D0A2F9\r\n"
    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Amz-Checksum-Crc32c: wdBDMA==\r\n\r\n";

ResponseHead head_of(const std::string& text) {
  ResponseHead head;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    head.add_line(std::string_view(text).substr(at, end - at));
    at = end;
  }
  return head;
}

// The good reply with one part in the place of another.
std::string with(const std::string& part, const std::string& other) {
  std::string text = kGood;
  text.replace(text.find(part), part.size(), other);
  return text;
}

const ExpectedRange kExpected{5, 10, 100, "abc-2", etag_number("abc-2")};

std::pair<RangeVerdict, std::string> judged(const std::string& text,
                                            const ExpectedRange& expected = kExpected) {
  std::string why;
  const RangeVerdict verdict = judge_range(head_of(text), expected, why);
  return {verdict, why};
}

TEST_CASE("what a head says is read, in any case of letters") {
  const ResponseHead head = head_of(kGood);
  CHECK(head.problem().empty());
  CHECK(head.status() == 206);
  CHECK(head.etag() == "abc-2");
  CHECK(head.content_length() == 10);
  CHECK(head.range_first() == 5);
  CHECK(head.range_last() == 14);
  CHECK(head.range_size() == 100);
  CHECK(head.request_id() == "4442587FB7D0A2F9");
  CHECK(head.date() == 784111777);
  CHECK(head.checksum_crc32c() == "wdBDMA==");
  CHECK(head.checksum_type().empty());
  const ResponseHead in_parts =
      head_of(with("ETag: \"abc-2\"", "ETag: \"a\"\r\nX-Amz-Checksum-Type: COMPOSITE"));
  CHECK(in_parts.checksum_type() == "COMPOSITE");
  CHECK_FALSE(head.has_transfer_encoding());
  CHECK(head_of(with("ETag: \"abc-2\"", "etag:abc-2")).etag() == "abc-2");  // as NetApp sends it
  const ResponseHead later = head_of("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n");
  CHECK(later.status() == 404);
}

TEST_CASE("the right reply is right, and used again the head knows nothing of it") {
  CHECK(judged(kGood).first == RangeVerdict::right);
  CHECK(judged(kGood, {5, 10, 100, "", etag_number("abc-2")}).first == RangeVerdict::right);
  ResponseHead head = head_of(kGood);
  head.clear();
  CHECK(head.add_line("HTTP/1.1 206 Partial Content"));
  std::string why;
  CHECK(judge_range(head, kExpected, why) == RangeVerdict::malformed);
  CHECK(head.etag().empty());
  CHECK(head.range_size() == -1);
}

TEST_CASE("another version of the object is seen, however the server tells") {
  const std::string etag = "ETag: \"abc-2\"";
  for (const std::string& text :
       {std::string("HTTP/1.1 412 Precondition Failed\r\n\r\n"),
        std::string("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */3\r\n\r\n"),
        with(etag, "ETag: \"abc-3\""), with("/100", "/101")}) {
    CAPTURE(text);
    CHECK(judged(text).first == RangeVerdict::changed);
  }
  CHECK(judged(kGood, {5, 10, 100, "", etag_number("abc-3")}).first == RangeVerdict::changed);
}

TEST_CASE("a look says that the version is there, or that another one is") {
  const auto look = [](const std::string& more) {
    return judged("HTTP/1.1 " + more + "\r\n\r\n", {0, 0, 0, "abc-2", etag_number("abc-2")}).first;
  };
  CHECK(look("200 OK\r\nETag: \"abc-2\"\r\nContent-Length: 0") == RangeVerdict::right);
  CHECK(look("200 OK\r\nETag: \"abc-2\"\r\nContent-Length: 1") == RangeVerdict::changed);
  CHECK(look("200 OK\r\nETag: \"abc-3\"\r\nContent-Length: 0") == RangeVerdict::changed);
  CHECK(look("412 Precondition Failed") == RangeVerdict::changed);
  CHECK(look("200 OK\r\nETag: \"abc-2\"") == RangeVerdict::malformed);
  CHECK(look("200 OK\r\nContent-Length: 0") == RangeVerdict::malformed);
  CHECK(look("204 No Content\r\nETag: \"abc-2\"\r\nContent-Length: 0") == RangeVerdict::malformed);
  CHECK(look("404 Not Found") == RangeVerdict::other);
}

TEST_CASE("a success that is not exactly what was asked for is refused") {
  const std::string etag = "ETag: \"abc-2\"\r\n", length = "Content-Length: 10\r\n";
  const std::string range = "Content-Range: bytes 5-14/100\r\n";
  for (const std::string& text : {
           with("206 Partial Content", "200 OK"),
           with("206 Partial Content", "203 OK"),
           with(etag, ""),
           with(etag, "ETag: W/\"abc-2\"\r\n"),
           with(etag, "ETag: \"\"\r\n"),
           with(etag, "ETag: \"a b\"\r\n"),
           with(etag, etag + "ETag: \"abc-3\"\r\n"),
           with(length, ""),
           with(length, "Content-Length: 11\r\n"),
           with(length, "Content-Length: -1\r\n"),
           with(length, "Content-Length: 1e1\r\n"),
           with(length, "Content-Length: +10\r\n"),
           with(length, "Content-Length: 99999999999999999999\r\n"),
           with(length, length + "Content-Length: 11\r\n"),
           with(range, ""),
           with(range, range + range),
           with(range, "Content-Range: bytes 6-15/100\r\n"),
           with(range, "Content-Range: bytes 5-15/100\r\n"),
           with(range, "Content-Range: bytes 5-14/*\r\n"),
           with(range, "Content-Range: items 5-14/100\r\n"),
           with(range, "Content-Range: bytes 14-5/100\r\n"),
           with(range, "Content-Range: bytes 5-100/100\r\n"),
           with(range, "Content-Range: bytes */100\r\n"),
           with(range, range + "Content-Encoding: gzip\r\n"),
           with(range, range + "Transfer-Encoding: chunked\r\n"),
           with(range, range + "no colon\r\n"),
           with(range, range + ": no name\r\n"),
           with(range, range + "ETag : x\r\n"),
           with(range, range + " x: folded\r\n"),
           with(range, range + "X: a\rb\r\n"),
           with("HTTP/1.1 206", "HTTP/2 206"),
           with("HTTP/1.1 206", "206"),
           with("206 Partial", "2066 Partial"),
           with("206 Partial", "20 Partial"),
           kGood + kGood,
           with(range, range + "X: " + std::string(70'000, 'x') + "\r\n"),
       }) {
    CAPTURE(text);
    const auto [verdict, why] = judged(text);
    CHECK(verdict == RangeVerdict::malformed);
    CHECK_FALSE(why.empty());
  }
  CHECK(judged(with(range, range + "Content-Encoding: identity\r\n")).first == RangeVerdict::right);
  CHECK(judged(with(length, length + length)).first == RangeVerdict::right);
}

TEST_CASE("other statuses are errors with a text") {
  for (const char* status : {"301", "400", "403", "404", "429", "500", "503"}) {
    const std::string text =
        std::string("HTTP/1.1 ") + status + " No\r\nTransfer-Encoding: chunked\r\n\r\n";
    CHECK(judged(text).first == RangeVerdict::other);
  }
}

TEST_CASE("dates are read, and nothing else is one") {
  CHECK(parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT") == 0);
  CHECK(parse_http_date("Tue, 29 Feb 2000 23:59:59 GMT") == 951868799);
  for (const char* text : {"", "Sun, 06 Nov 1994 08:49:37 UTC", "Sunday, 06-Nov-94 08:49:37 GMT",
                           "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT",
                           "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, -6 Nov 1994 08:49:37 GMT"}) {
    CHECK(parse_http_date(text) == -1);
  }
}

}  // namespace s3io::testing::http_head_test
