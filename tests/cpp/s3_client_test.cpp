// What the client makes of replies: which it repeats, which it mends, what its errors say and hide.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "http/etag.h"
#include "scripted_transport.h"

namespace s3io::testing::s3_client_test {

// A source with a newer set for each that is refused, up to so many.
class RotatingCredentials final : public CredentialSource {
 public:
  explicit RotatingCredentials(int sets) : sets_(sets) {}
  std::shared_ptr<const Credentials> current() override { return set(number); }
  std::shared_ptr<const Credentials> renew(const Credentials& refused) override {
    CHECK(refused == *set(number));
    ++renewals;
    return number + 1 < sets_ ? set(++number) : nullptr;
  }
  int number = 0, renewals = 0;

 private:
  static std::shared_ptr<const Credentials> set(int number) {
    Credentials credentials = kCanary;
    credentials.session_token += std::to_string(number);
    return std::make_shared<const Credentials>(credentials);
  }
  const int sets_;
};

struct Scene {
  explicit Scene(ScriptedS3::Script script, S3Config config = scripted_config(), int sets = 1)
      : credentials(std::make_shared<RotatingCredentials>(sets)),
        client(std::move(config), credentials, s3) {
    s3->put("s3://bucket/a b", Bytes(100, std::byte{7}));
    s3->script = std::move(script);
    call.object = {"bucket", "a b"};
  }

  Caught failure() {
    return caught([&] { client.call(call); });
  }
  // Reads bytes 10 to 19.
  void expect_range() {
    call.headers = {{"range", "bytes=10-19"}};
    call.http.expected = {10, 10, 100, "version-1", etag_number("version-1")};
    call.http.data = memory.data();
  }

  const std::shared_ptr<ScriptedS3> s3 = std::make_shared<ScriptedS3>();
  const std::shared_ptr<RotatingCredentials> credentials;
  S3Client client;
  S3Call call;
  Bytes memory = Bytes(10);
};

// The same reply to every request.
ScriptedS3::Script always(const ScriptedReply& reply) {
  return [reply](int, const HttpRequest&, ScriptedReply& out) { out = reply; };
}

TEST_CASE("each status and code is an error of its kind, after as many attempts as are of use") {
  struct Case {
    const char* status;
    const char* code;
    ErrorKind kind;
    bool may_pass;
  };
  const Case cases[] = {
      {"404 Not Found", "NoSuchKey", ErrorKind::not_found, false},
      {"403 Forbidden", "AccessDenied", ErrorKind::access, false},
      {"401 Unauthorized", "", ErrorKind::access, false},
      {"400 Bad Request", "InvalidArgument", ErrorKind::config, false},
      {"405 Method Not Allowed", "MethodNotAllowed", ErrorKind::read, false},
      {"307 Temporary Redirect", "TemporaryRedirect", ErrorKind::config, false},
      {"412 Precondition Failed", "PreconditionFailed", ErrorKind::object_changed, false},
      {"400 Bad Request", "RequestTimeout", ErrorKind::read, true},
      {"408 Request Timeout", "", ErrorKind::read, true},
      {"429 Too Many Requests", "", ErrorKind::read, true},
      {"500 Internal Server Error", "InternalError", ErrorKind::read, true},
      {"502 Bad Gateway", "", ErrorKind::read, true},
      {"503 Slow Down", "SlowDown", ErrorKind::read, true},
      {"504 Gateway Timeout", "", ErrorKind::read, true},
  };
  for (const Case& one : cases) {
    CAPTURE(one.status);
    Scene scene(always(ScriptedReply::error(one.status, one.code, "<Message>as it is</Message>")));
    const Caught error = scene.failure();
    CHECK(error.kind == one.kind);
    CHECK(scene.s3->requests() == (one.may_pass ? 12 : 1));
    CHECK(error.says("s3://bucket/a b: "));
    CHECK(error.says(std::string(one.status, 3)));
    CHECK(error.says(one.code));
    CHECK(error.says("'as it is'"));
    CHECK(error.says("request id 'REQUEST1'"));
  }
}

TEST_CASE("a server of which nothing was ever heard is given up soon, another one is not") {
  Scene scene(always({.outcome = HttpOutcome::misnamed}));
  const Caught error = scene.failure();
  CHECK(error.says("endpoint="));
  CHECK(scene.s3->requests() == 5);
  scene.s3->script = {};
  scene.client.call(scene.call);  // from then on its name is right
  scene.s3->script = always({.outcome = HttpOutcome::misnamed});
  CHECK(scene.failure().says("attempt 12"));
}

TEST_CASE("three replies that are none are too many, however many others there were") {
  Scene scene([](int number, const HttpRequest&, ScriptedReply& reply) {
    if (number < 8) {
      reply = number % 3 == 0 ? ScriptedReply::error("503 Slow Down", "SlowDown") : reply;
      reply.remove(number % 3 == 1 ? "ETag" : "Content-Range");
    }
  });
  scene.expect_range();
  CHECK(scene.failure().says("does not speak S3's protocol"));
  CHECK(scene.s3->requests() == 5);
  scene.s3->script = [](int, const HttpRequest&, ScriptedReply& reply) {
    reply.set("Content-Encoding", "gzip");
  };
  CHECK(scene.failure().says("upload it without"));
  Scene head(scene.s3->script);
  head.call.method = "HEAD";
  const Caught error = head.failure();
  CHECK(error.kind == ErrorKind::data);
  CHECK(error.says("Content-Encoding"));
  CHECK(head.s3->requests() == 1);
}

TEST_CASE("a server that says how long to wait is heeded, up to the longest wait") {
  S3Config config = scripted_config();
  config.most_backoff = milliseconds(3000);
  auto busy = ScriptedReply::error("503 Slow Down", "SlowDown");
  HttpInbox inbox;
  for (const char* seconds : {"2", "1000000"}) {
    busy.set("Retry-After", seconds);
    Scene scene(always(busy), config);
    scene.call.http.inbox = &inbox;
    const auto begun = Clock::now();
    scene.client.begin(scene.call);
    REQUIRE(inbox.take() == &scene.call.http);
    REQUIRE(scene.client.judge(scene.call) == S3Client::Next::again);
    CHECK(scene.call.not_before >= begun + std::chrono::seconds(2));
    CHECK(scene.call.not_before <= Clock::now() + std::chrono::seconds(3));
  }
}

TEST_CASE("the name of an object does not write to the terminal") {
  Scene scene({});
  scene.call.object.key = "a\n\x1b[2J";
  CHECK(scene.failure().says("s3://bucket/a\\n\\x1b[2J: "));
}

TEST_CASE("what passes is not seen, and a range that failed says which") {
  for (const HttpOutcome outcome :
       {HttpOutcome::broken, HttpOutcome::unreached, HttpOutcome::late}) {
    Scene scene([&](int number, const HttpRequest& request, ScriptedReply& reply) {
      CHECK(request.is_fresh == (number > 0));
      if (number < 11) reply.outcome = outcome;
    });
    scene.expect_range();
    scene.client.call(scene.call);
    CHECK(scene.s3->requests() == 12);
    CHECK(scene.memory == Bytes(10, std::byte{7}));
    scene.s3->script = [&](int, const HttpRequest&, ScriptedReply& reply) {
      reply.outcome = outcome;
    };
    const Caught error = scene.failure();
    CHECK(error.says("s3://bucket/a b, bytes 10-19: "));
    CHECK(error.says("attempt 12"));
    CHECK(error.kind == (outcome == HttpOutcome::late ? ErrorKind::read_timeout : ErrorKind::read));
  }
}

TEST_CASE("what must not be repeated is repeated only where it reached nobody") {
  for (const HttpOutcome outcome : {HttpOutcome::broken, HttpOutcome::unreached}) {
    Scene scene(always({.outcome = outcome}));
    scene.call.may_repeat = false;
    scene.failure();
    CHECK(scene.s3->requests() == (outcome == HttpOutcome::unreached ? 12 : 1));
  }
  Scene untrusted(always({.outcome = HttpOutcome::untrusted}));
  CHECK(untrusted.failure().says("ca_file="));
  CHECK(untrusted.s3->requests() == 1);
}

TEST_CASE("no attempt begins later than retry_timeout_s after the first failure") {
  S3Config config = scripted_config();
  config.retry_timeout_s = 0;
  Scene none(always({.outcome = HttpOutcome::broken}), config);
  CHECK(none.failure().says("retry_timeout_s"));
  CHECK(none.s3->requests() == 1);
  // However long the first attempt took; and with however many others it has to wait.
  config.retry_timeout_s = 5;
  config.retries_per_s = 2;
  Scene scene(always({.outcome = HttpOutcome::broken}), config);
  HttpInbox inbox;
  scene.call.http.inbox = &inbox;
  const Clock::time_point begun = Clock::now();
  int repeated = 0;
  for (int number = 0; number < 100; ++number) {
    scene.client.begin(scene.call);
    scene.call.begun -= std::chrono::hours(1);
    REQUIRE(inbox.take() == &scene.call.http);
    if (scene.client.judge(scene.call) == S3Client::Next::done) continue;
    ++repeated;
    CHECK(scene.call.not_before < *scene.call.failed + std::chrono::seconds(5));
  }
  const auto seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  CHECK(repeated >= 10);
  CHECK(repeated <= 2 * (5 + 1 + seconds));
  CHECK(scene.call.error);
}

TEST_CASE("credentials that have expired are renewed once, whatever the request") {
  for (const bool is_silent : {false, true}) {  // HEAD has no text
    const auto refuse_first = [&](int number, const HttpRequest& request, ScriptedReply& reply) {
      const std::string token = header_of(request, "x-amz-security-token");
      CHECK(token == kCanary.session_token + std::to_string(number));
      if (number > 0) return;
      reply = ScriptedReply::error("400 Bad Request", "ExpiredToken");
      if (is_silent) reply.body.clear();
    };
    Scene scene(refuse_first, scripted_config(), 2);
    scene.client.call(scene.call);
    CHECK(scene.credentials->renewals == 1);
    CHECK(scene.s3->requests() == 2);

    Scene again(always(ScriptedReply::error("403 Forbidden", "ExpiredToken")), scripted_config(),
                9);
    CHECK(again.failure().kind == ErrorKind::access);
    CHECK(again.credentials->renewals == 1);
    Scene none(always(ScriptedReply::error("403 Forbidden", "ExpiredToken")));
    CHECK(none.failure().kind == ErrorKind::access);
    CHECK(none.s3->requests() == 1);
  }
}

TEST_CASE("keys that the server does not know are looked up once more, by one of all calls") {
  for (const char* code : {"InvalidAccessKeyId", "SignatureDoesNotMatch"}) {
    const auto refuse_first = [&](int, const HttpRequest& request, ScriptedReply& reply) {
      const std::string token = header_of(request, "x-amz-security-token");
      if (token.ends_with("0")) reply = ScriptedReply::error("403 Forbidden", code);
    };
    Scene scene(refuse_first, scripted_config(), 9);
    HttpInbox inbox;
    S3Call other = scene.call;
    for (S3Call* call : {&scene.call, &other}) {
      call->http.inbox = &inbox;
      scene.client.begin(*call);
    }
    for (S3Call* call : {&scene.call, &other}) {
      CHECK(scene.client.judge(*call) == S3Client::Next::again);
      scene.client.submit(*call);
      CHECK(scene.client.judge(*call) == S3Client::Next::done);
      CHECK(!call->error);
    }
    CHECK(scene.credentials->renewals == 1);

    Scene wrong(always(ScriptedReply::error("403 Forbidden", code)), scripted_config(), 9);
    for (int number = 0; number < 3; ++number) CHECK(wrong.failure().kind == ErrorKind::access);
    CHECK(wrong.credentials->renewals == 1);
  }
}

TEST_CASE("credentials that are too old, and cannot be renewed, are no wrong setting") {
  for (const char* code : {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", ""}) {
    CAPTURE(code);
    ScriptedReply reply = ScriptedReply::error("400 Bad Request", code);
    if (*code == 0) reply.body.clear();  // as of HEAD
    Scene scene(always(reply));
    if (*code == 0) scene.call.method = "HEAD";
    const Caught error = scene.failure();
    CHECK(error.kind == ErrorKind::access);
    CHECK(error.says("session_token="));
    CHECK(error.says("AWS_SESSION_TOKEN"));
    // Who got no word of it names what else it may be.
    CHECK(error.says("token has expired") == (*code != 0));
    for (const char* cause : {"token may have expired", "SSE-C", "region="}) {
      CHECK(error.says(cause) == (*code == 0));
    }
    CHECK(scene.s3->requests() == 1);
  }
  Scene other(always(ScriptedReply::error("400 Bad Request", "InvalidArgument")));
  CHECK(other.failure().kind == ErrorKind::config);
}

TEST_CASE("a clock that is wrong is set once, by the server's") {
  std::string first_date, second_date;
  Scene scene([&](int number, const HttpRequest& request, ScriptedReply& reply) {
    (number == 0 ? first_date : second_date) = header_of(request, "x-amz-date");
    if (number > 0) return;
    reply = ScriptedReply::error("403 Forbidden", "RequestTimeTooSkewed");
    reply.set("Date", "Fri, 01 Jan 2038 00:00:10 GMT");
  });
  scene.client.call(scene.call);
  CHECK(scene.s3->requests() == 2);
  CHECK(first_date < "2038");
  CHECK(second_date.starts_with("20380101T0000"));
  scene.client.call(scene.call);  // the next one is right from the start
  CHECK(scene.s3->requests() == 3);
  CHECK(second_date.starts_with("20380101T0000"));

  auto skewed = ScriptedReply::error("403 Forbidden", "RequestTimeTooSkewed");
  skewed.set("Date", "Fri, 01 Jan 2038 00:00:10 GMT");
  Scene never(always(skewed));
  CHECK(never.failure().kind == ErrorKind::access);
  CHECK(never.s3->requests() == 2);
}

TEST_CASE("a bucket of another region is found once, at a host of our own making") {
  std::string status;
  std::vector<std::string> urls;
  const auto elsewhere = [&](int, const HttpRequest& request, ScriptedReply& reply) {
    urls.push_back(request.url);
    if (request.url.find("eu-west-9") != std::string::npos) return;
    reply = ScriptedReply::error(status, "PermanentRedirect");
    reply.set("x-amz-bucket-region", "eu-west-9");
    reply.set("Location", "http://evil.example.com/");
  };
  S3Config config = scripted_config();
  config.endpoint = "";
  config.addressing = Addressing::path;
  for (const char* one : {"301 Moved Permanently", "307 Temporary Redirect"}) {
    status = one;
    urls.clear();
    Scene scene(elsewhere, config);
    scene.client.call(scene.call);
    CHECK(urls == std::vector<std::string>{"https://s3.us-east-1.amazonaws.com/bucket/a%20b",
                                           "https://s3.eu-west-9.amazonaws.com/bucket/a%20b"});
  }
  auto nowhere = ScriptedReply::error("301 Moved Permanently", "PermanentRedirect",
                                      "<Region>evil.example.com/</Region>");
  Scene refused(always(nowhere), config);
  CHECK(refused.failure().says("region="));
  CHECK(refused.s3->requests() == 1);
}

TEST_CASE("buckets of several regions are each asked for in their own, from then on") {
  S3Config config = scripted_config();
  config.endpoint = "";
  const auto region_of = [](const std::string& bucket) { return "eu-" + bucket; };
  Scene scene(
      [&](int, const HttpRequest& request, ScriptedReply& reply) {
        const std::string bucket = request.url.substr(8, request.url.find('.') - 8);
        if (request.url.find("." + region_of(bucket) + ".") != std::string::npos) {
          reply = {.body = "well"};
          return;
        }
        reply = ScriptedReply::error("301 Moved Permanently", "PermanentRedirect");
        reply.set("x-amz-bucket-region", region_of(bucket));
      },
      config);
  HttpInbox inbox;
  S3Call calls[2];
  for (S3Call& call : calls) {
    call.http.inbox = &inbox;
    call.object = {&call == calls ? "first" : "second", "key"};
    scene.client.begin(call);
  }
  inbox.take();
  for (S3Call& call : calls) CHECK(scene.client.judge(call) == S3Client::Next::again);
  for (S3Call& call : calls) {  // both have moved by now
    scene.client.submit(call);
    CHECK(scene.client.judge(call) == S3Client::Next::done);
    CHECK_FALSE(call.error);
  }
  for (int number = 0; number < 10; ++number) {
    scene.call.object.bucket = number % 2 == 0 ? "first" : "second";
    scene.client.call(scene.call);
  }
  CHECK(scene.s3->requests() == 4 + 10);
}

TEST_CASE("a server sends requests to 64 regions, and to no more") {
  S3Config config = scripted_config();
  config.endpoint = "";
  Scene scene(
      [](int, const HttpRequest& request, ScriptedReply& reply) {
        const std::string bucket = request.url.substr(8, request.url.find('.') - 8);
        reply = {.body = "well"};
        if (request.url.find(".eu-" + bucket + ".") != std::string::npos) return;
        reply = ScriptedReply::error("301 Moved Permanently", "PermanentRedirect");
        reply.set("x-amz-bucket-region", "eu-" + bucket);
      },
      config);
  for (int number = 0; number < 64; ++number) {
    scene.call.object.bucket = "bucket-" + std::to_string(number);
    scene.client.call(scene.call);
  }
  scene.call.object.bucket = "bucket-64";
  const int before = scene.s3->requests();
  CHECK(scene.failure().kind == ErrorKind::config);
  CHECK(scene.s3->requests() == before + 1);
  scene.call.object.bucket = "bucket-63";  // those that are known stay so
  scene.client.call(scene.call);
  CHECK(scene.s3->requests() == before + 2);
}

TEST_CASE("a server that forbids without a word is not believed about the clock, or for long") {
  auto forbidden = ScriptedReply::error("403 Forbidden", "");
  forbidden.body.clear();
  forbidden.set("Date", "Fri, 01 Jan 2038 00:00:10 GMT");
  Scene scene(always(forbidden), scripted_config(), 9);
  for (int number = 0; number < 3; ++number) CHECK(scene.failure().kind == ErrorKind::access);
  CHECK(scene.credentials->renewals == 1);
  std::string date;
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply&) {
    date = header_of(request, "x-amz-date");
  };
  scene.client.call(scene.call);
  CHECK(date < "2038");
}

TEST_CASE("in a forked child every call is an error, and nobody is asked for credentials") {
  struct Forbidden final : CredentialSource {
    std::shared_ptr<const Credentials> current() override { throw std::logic_error("asked"); }
    std::shared_ptr<const Credentials> renew(const Credentials&) override { return nullptr; }
  };
  S3Client client(scripted_config(), std::make_shared<Forbidden>(), std::make_shared<ScriptedS3>());
  CHECK(run_in_child([&] {
          S3Call call;
          const Caught error = caught([&] { client.call(call); });
          require_in_child(error.kind == ErrorKind::config && error.says("fork"), "no error");
        }) == "");
}

TEST_CASE("requests are signed as they are sent, and not without credentials") {
  S3Config config = scripted_config();
  config.requester_pays = true;
  std::set<std::string> names;
  Scene scene(
      [&](int, const HttpRequest& request, ScriptedReply&) {
        for (const HttpHeader& header : request.headers) names.insert(header.name);
        CHECK(header_of(request, "host") == "localhost:9000");
        CHECK(header_of(request, "authorization")
                  .find("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-request-payer;"
                        "x-amz-security-token,") != std::string::npos);
      },
      config);
  scene.expect_range();
  scene.client.call(scene.call);
  CHECK(names == std::set<std::string>{"host", "range", "authorization", "x-amz-content-sha256",
                                       "x-amz-date", "x-amz-request-payer",
                                       "x-amz-security-token"});
  scene.s3->script = [](int, const HttpRequest& request, ScriptedReply&) {
    CHECK(header_of(request, "authorization").find("=content-type;host;") != std::string::npos);
  };
  scene.call.headers.push_back({"content-type", "text/plain"});
  scene.client.call(scene.call);
  scene.call.headers.pop_back();
  S3Client anonymous(scripted_config(), fixed_credentials({}), scene.s3);
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply&) {
    CHECK(request.headers.size() == 2);  // host and range
  };
  anonymous.call(scene.call);
}

TEST_CASE("no secret is in the text of any error, whatever the server repeats") {
  const std::string echo = "<Message>" + kCanary.secret_key + kCanary.session_token + "0 " +
                           kCanary.access_key + "</Message><RequestId>" + kCanary.access_key +
                           "</RequestId>";
  for (const char* status : {"400 Bad", "403 Forbidden", "404 Not Found", "503 Slow Down"}) {
    auto reply = ScriptedReply::error(status, "SignatureDoesNotMatch", echo);
    reply.remove("x-amz-request-id");
    const Caught error = Scene(always(reply)).failure();
    CHECK(error.says("SignatureDoesNotMatch"));
    CHECK_FALSE(error.says("canary"));
    CHECK_FALSE(error.says(kCanary.access_key));
  }
  const auto client_of = [](const Credentials& credentials) {
    S3Client client(scripted_config(), fixed_credentials(credentials),
                    std::make_shared<ScriptedS3>());
    S3Call call;
    client.call(call);
  };
  const Caught error = caught([&] { client_of({"key\r\nx: y", "canary", ""}); });
  CHECK(error.kind == ErrorKind::config);
  CHECK_FALSE(error.says("canary"));
  CHECK_FALSE(error.says("key\r"));
}

TEST_CASE("of a secret that is cut, no part of 8 bytes is shown") {
  Credentials credentials = kCanary;
  credentials.session_token.clear();
  std::mt19937_64 random(19);
  while (credentials.session_token.size() < 1000) {
    credentials.session_token += static_cast<char>('A' + random() % 26);
  }
  const std::string& token = credentials.session_token;
  for (const std::string& echo : {token, token.substr(1), token.substr(500, 40)}) {
    const auto s3 = std::make_shared<ScriptedS3>();
    s3->script = always(ScriptedReply::error("403 Forbidden", "Denied",
                                             "<Message>Not with " + echo + "</Message>"));
    S3Client client(scripted_config(), fixed_credentials(credentials), s3);
    S3Call call;
    call.object = {"bucket", "key"};
    const Caught error = caught([&] { client.call(call); });
    CHECK(error.says("Not with ..."));
    for (size_t at = 0; at + 8 <= token.size(); ++at) {
      REQUIRE_FALSE(error.says(token.substr(at, 8)));
    }
  }
  // A short access key is hidden as a word, and leaves others as they are.
  CHECK(without_secrets("test testing 'test'", {"test", ".", ""}) == "... testing '...'");
}

TEST_CASE("all requests together are repeated at a rate that a server in distress can bear") {
  S3Config config = scripted_config();
  config.retries_per_s = 20;
  Scene scene(always(ScriptedReply::error("503 Slow Down", "SlowDown")), config);
  HttpInbox inbox;
  std::vector<Clock::time_point> times;
  const Clock::time_point begun = Clock::now();
  for (int number = 0; number < 200; ++number) {
    scene.call.http.inbox = &inbox;
    scene.client.begin(scene.call);
    REQUIRE(inbox.take() == &scene.call.http);
    REQUIRE(scene.client.judge(scene.call) == S3Client::Next::again);
    times.push_back(scene.call.not_before);
  }
  // Of 200, 20 at once, and the others in nine seconds.
  CHECK(times.back() >= begun + milliseconds(8'900));
  CHECK(std::ranges::is_sorted(times));
}

TEST_CASE("a caller that gives up gets its memory back") {
  Scene scene([](int, const HttpRequest&, ScriptedReply& reply) { reply.is_lost = true; });
  struct Interrupt {};
  scene.expect_range();
  CHECK_THROWS_AS(scene.client.call(scene.call, [] { throw Interrupt(); }), Interrupt);
  CHECK(scene.call.http.outcome == HttpOutcome::cancelled);
  CHECK(scene.memory == Bytes(10));
}

}  // namespace s3io::testing::s3_client_test
