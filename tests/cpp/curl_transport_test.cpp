// HTTP by libcurl against a server that sends any bytes: what is stored, what is refused, and which
// connections are used again.
#include "http/curl_transport.h"

#include <doctest/doctest.h>

#include "leak_check.h"
#include "raw_server.h"

namespace s3io::testing::curl_transport_test {

using Reply = RawServer::Reply;
using Then = RawServer::Then;

// The loopback is reached without a proxy, whatever the machine has.
[[maybe_unused]] const int no_proxy = ::setenv("no_proxy", "127.0.0.1", 1);
constexpr int64_t kObjectBytes = 3'000'000;
const Bytes kObject = random_bytes(kObjectBytes, 19);

std::string text_of(int64_t offset, int64_t length) {
  return {reinterpret_cast<const char*>(kObject.data()) + offset, static_cast<size_t>(length)};
}

std::string head_of(int64_t offset, int64_t length) {
  return "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Length: " +
         std::to_string(length) + "\r\nContent-Range: bytes " + std::to_string(offset) + "-" +
         std::to_string(offset + length - 1) + "/" + std::to_string(kObjectBytes) + "\r\n\r\n";
}

std::string good(int64_t offset, int64_t length) {
  return head_of(offset, length) + text_of(offset, length);
}

// A request for a range into memory with a rim that must stay as it is.
struct Fetch {
  Fetch(const RawServer& server, int64_t offset, int64_t length) : Fetch(server.url()) {
    request.expected = {offset, length, kObjectBytes, "v", etag_number("v")};
    memory.assign(static_cast<size_t>(length) + 2 * kRim, std::byte{0x5a});
    request.data = memory.data() + kRim;
  }
  explicit Fetch(const std::string& url) {
    request.url = url;
    request.headers = {{"host", url.substr(7, url.find('/', 7) - 7)}};
    request.settings = &settings;
    request.inbox = &inbox;
  }

  void run(Transport& transport) {
    transport.submit(request);
    wait();
  }
  void wait() {
    while (inbox.take() == nullptr) inbox.wait(kWaitSlice);
  }
  bool rim_is_whole() const {
    const auto is_rim = [](std::byte one) { return one == std::byte{0x5a}; };
    return std::all_of(memory.begin(), memory.begin() + kRim, is_rim) &&
           std::all_of(memory.end() - kRim, memory.end(), is_rim);
  }
  bool is_untouched() const {
    return std::ranges::all_of(memory, [](std::byte one) { return one == std::byte{0x5a}; });
  }
  bool is_right() const {
    return request.outcome == HttpOutcome::replied && rim_is_whole() &&
           request.body_bytes == request.expected->length &&
           equals(memory.data() + kRim,
                  Bytes(kObject.begin() + request.expected->offset,
                        kObject.begin() + request.expected->offset + request.expected->length));
  }

  static constexpr size_t kRim = 64;
  HttpSettings settings;
  HttpInbox inbox;
  HttpRequest request;
  Bytes memory;
};

TEST_CASE("ranges land where they belong, one after the other on one connection") {
  const LeakCheck leaks;
  RawServer server([](int, int number, const std::string& head) {
    CHECK(head.starts_with("GET /bucket/../a%20b HTTP/1.1\r\nHost: 127.0.0.1"));
    for (const char* name : {"Accept", "Expect", "Content-Type", "accept-encoding", "User-Agent"}) {
      CHECK(head.find(name) == std::string::npos);
    }
    return Reply{good(number * 1000, 100'000)};
  });
  const auto transport = make_curl_transport();
  for (int number = 0; number < 20; ++number) {
    Fetch fetch(server, number * 1000, 100'000);
    fetch.request.url = server.url("/bucket/../a%20b");
    fetch.run(*transport);
    CHECK(fetch.is_right());
    CHECK(fetch.inbox.bytes == 100'000);
  }
  CHECK(server.connections() == 1);
}

TEST_CASE("many at once share so many connections as there may be") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string& head) {
    const int64_t offset = std::stoll(head.substr(head.find("offset: ") + 8));
    return Reply{good(offset, 200'000)};
  });
  const auto transport = make_curl_transport({.connections = 3});
  std::vector<std::unique_ptr<Fetch>> fetches;
  for (int number = 0; number < 12; ++number) {
    fetches.push_back(std::make_unique<Fetch>(server, number * 1000, 200'000));
    fetches.back()->request.headers.push_back({"offset", std::to_string(number * 1000)});
    transport->submit(fetches.back()->request);
  }
  for (const auto& fetch : fetches) {
    fetch->wait();
    CHECK(fetch->is_right());
  }
  CHECK(server.connections() <= 3);
}

TEST_CASE("a head that is wrong is refused before a byte of its body is stored") {
  const LeakCheck leaks;
  std::string bytes = good(0, 1000);
  const auto with = [&](const std::string& part, const std::string& other) {
    std::string text = bytes;
    return text.replace(text.find(part), part.size(), other);
  };
  const std::vector<std::string> wrong{
      with("206 Partial", "200 OK"),
      with("ETag: \"v\"", "ETag: \"w\""),
      with("bytes 0-999/", "bytes 1-1000/"),
      with("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"),
      with("Content-Length: 1000", "Transfer-Encoding: chunked"),
      with("Content-Length: 1000", "Content-Length: 999"),
      with("\r\n\r\n", "\r\nX: " + std::string(70'000, 'x') + "\r\n\r\n"),
      "HTTP/1.1 200 OK\r\n\r\n" + text_of(0, 1000),
      with("ETag", "ETag : \"w\"\r\nETag"),
  };
  const auto transport = make_curl_transport();
  for (const std::string& text : wrong) {
    CAPTURE(text.substr(0, 200));
    RawServer server([&](int, int, const std::string&) { return Reply{text, Then::close}; });
    Fetch fetch(server, 0, 1000);
    fetch.run(*transport);
    CHECK(fetch.request.outcome != HttpOutcome::replied);
    CHECK_FALSE(fetch.request.problem.empty());
    CHECK(fetch.is_untouched());
  }
}

TEST_CASE("a body that is cut off, or too long, is no reply, and nothing is written beside it") {
  const LeakCheck leaks;
  std::string no_length = good(0, 1000);
  no_length.erase(no_length.find("Content-Length"), 22);
  const std::vector<std::string> wrong{
      good(0, 1000).substr(0, 500),
      head_of(0, 1000),
      no_length.substr(0, no_length.size() - 1),
      "garbage",
      "",
      "HTTP/1.1 206 Partial Content\r\nETag: \"v\"",
  };
  const auto transport = make_curl_transport();
  for (const std::string& text : wrong) {
    CAPTURE(text.substr(0, 200));
    RawServer server([&](int, int, const std::string&) { return Reply{text, Then::close}; });
    Fetch fetch(server, 0, 1000);
    fetch.run(*transport);
    CHECK((fetch.request.outcome == HttpOutcome::broken ||
           fetch.request.outcome == HttpOutcome::refused));
    CHECK(fetch.rim_is_whole());
  }
  // Of texts, whose length nobody knows, so much may come.
  RawServer endless([](int, int, const std::string&) {
    return Reply{"HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'x'), Then::close};
  });
  Fetch fetch(endless.url());
  fetch.request.most_text_bytes = 5000;
  fetch.run(*transport);
  CHECK(fetch.request.outcome == HttpOutcome::refused);
  CHECK(fetch.request.text.size() <= 5000);
}

TEST_CASE("texts of any form come, and what they say of the connection is heeded") {
  const LeakCheck leaks;
  const std::string chunked =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nT: "
      "x\r\n\r\n";
  const auto transport = make_curl_transport();
  for (const std::string& text :
       {chunked,
        std::string(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde")}) {
    RawServer server([&](int, int, const std::string&) { return Reply{text}; });
    for (int number = 0; number < 2; ++number) {
      Fetch fetch(server.url());
      fetch.run(*transport);
      CHECK(fetch.request.outcome == HttpOutcome::replied);
      CHECK(fetch.request.text == "abcde");
    }
    CHECK(server.connections() == 1);
  }
}

TEST_CASE("only a connection with a clean reply is used again") {
  const LeakCheck leaks;
  struct Case {
    const char* status;
    bool is_kept;
  };
  for (const Case& one :
       {Case{"200 OK", true}, Case{"404 Not Found", true}, Case{"412 Precondition Failed", true},
        Case{"403 Forbidden", false}, Case{"500 Internal Server Error", false},
        Case{"503 Slow Down", false}, Case{"307 Temporary Redirect", false}}) {
    CAPTURE(one.status);
    RawServer server([&](int, int, const std::string&) {
      return Reply{"HTTP/1.1 " + std::string(one.status) +
                   "\r\nContent-Length: 1\r\nLocation: /x\r\n\r\nx"};
    });
    const auto transport = make_curl_transport();
    for (int number = 0; number < 3; ++number) {
      Fetch fetch(server.url());
      fetch.run(*transport);
      CHECK(fetch.request.outcome == HttpOutcome::replied);
      CHECK(fetch.request.text == "x");
    }
    CHECK(server.connections() == (one.is_kept ? 1 : 3));
    Fetch fresh(server.url());
    fresh.request.is_fresh = true;
    fresh.run(*transport);
    CHECK(server.connections() == (one.is_kept ? 2 : 4));
  }
}

TEST_CASE("what comes late on a kept connection is never the next reply") {
  const LeakCheck leaks;
  // The surplus is a whole reply that the next request would take for its own.
  RawServer server([](int connection, int, const std::string&) {
    std::string other = good(0, 1000);
    other.replace(other.size() - 1000, 1000, std::string(1000, 'x'));
    return Reply{good(0, 1000), Then::keep, connection == 0 ? other : ""};
  });
  const auto transport = make_curl_transport();
  for (int number = 0; number < 3; ++number) {
    Fetch fetch(server, 0, 1000);
    fetch.run(*transport);
    CHECK(fetch.is_right());
    if (number == 0) server.send_later();
  }
  CHECK(server.connections() == 2);
}

TEST_CASE("a connection that the server has closed meanwhile is replaced by another one") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string&) { return Reply{good(0, 1000), Then::close}; });
  const auto transport = make_curl_transport();
  for (int number = 0; number < 5; ++number) {
    Fetch fetch(server, 0, 1000);
    fetch.run(*transport);
    CHECK(fetch.is_right());
  }
  CHECK(server.connections() == 5);
}

TEST_CASE("payloads are sent from where they lie, by any method") {
  const LeakCheck leaks;
  std::vector<std::string> heads;
  RawServer server([&](int, int, const std::string& head) {
    heads.push_back(head);
    return Reply{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::close};
  });
  const auto transport = make_curl_transport();
  const std::string payload = "payload\r\n\r\n";  // what the server takes for the end of a head
  for (const std::string_view method : {"PUT", "POST", "HEAD", "DELETE"}) {
    Fetch fetch(server.url());
    fetch.request.method = method;
    if (method == "PUT" || method == "POST")
      fetch.request.payload = std::as_bytes(std::span(payload));
    fetch.run(*transport);
    CHECK(fetch.request.outcome == HttpOutcome::replied);
    CHECK(heads.back().starts_with(method));
    const bool has_length = heads.back().find("Content-Length: 11\r\n") != std::string::npos;
    CHECK(has_length == !fetch.request.payload.empty());
  }
}

TEST_CASE("a request that is cancelled comes back, and its memory is left alone") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string&) {
    return Reply{good(0, 2'000'000).substr(0, 1'000'000), Then::stall};
  });
  const auto transport = make_curl_transport({.connections = 1});
  Fetch fetch(server, 0, 2'000'000), next(server, 0, 1000), waiting(server, 0, 1000);
  for (Fetch* one : {&fetch, &next, &waiting}) transport->submit(one->request);
  CHECK(holds_soon([&] { return fetch.inbox.bytes > 0; }));
  for (Fetch* one : {&waiting, &next, &fetch}) {  // also of those that wait, the last one
    transport->cancel(one->request);
    one->wait();
    CHECK(one->request.outcome == HttpOutcome::cancelled);
    CHECK(one->rim_is_whole());
  }
  CHECK(waiting.is_untouched());
  CHECK(fetch.inbox.take() == nullptr);
}

TEST_CASE("whenever a request is cancelled, it comes back once, whole or not at all") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string&) { return Reply{good(0, 50'000)}; });
  const auto transport = make_curl_transport({.connections = 2});
  std::mt19937_64 random(19);
  int cancelled = 0;
  for (int round = 0; round < rounds(100); ++round) {
    std::vector<std::unique_ptr<Fetch>> fetches;
    for (int number = 0; number < 4; ++number) {
      fetches.push_back(std::make_unique<Fetch>(server, 0, 50'000));
      transport->submit(fetches.back()->request);
    }
    const auto wanted = static_cast<int64_t>(random() % 100'000);
    Fetch& first = *fetches.front();
    CHECK(holds_soon([&] { return first.inbox.bytes >= std::min<int64_t>(wanted, 50'000); }));
    for (const auto& fetch : fetches) {
      if (random() % 2 == 0) transport->cancel(fetch->request);
    }
    for (const auto& fetch : fetches) {
      fetch->wait();
      CHECK(fetch->rim_is_whole());
      const bool is_cancelled = fetch->request.outcome == HttpOutcome::cancelled;
      CHECK((is_cancelled || fetch->is_right()));
      cancelled += is_cancelled ? 1 : 0;
      CHECK(fetch->inbox.take() == nullptr);
    }
  }
  CHECK(cancelled > 0);
}

TEST_CASE("a transport that ends gives back what it has in hand") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string&) { return Reply{"", Then::stall}; });
  auto transport = make_curl_transport({.connections = 1});
  Fetch begun(server, 0, 1000), waiting(server, 0, 1000);
  transport->submit(begun.request);
  transport->submit(waiting.request);
  CHECK(holds_soon([&] { return server.requests() == 1; }));
  transport.reset();
  for (Fetch* one : {&begun, &waiting}) {
    one->wait();
    CHECK(one->request.outcome == HttpOutcome::cancelled);
  }
}

TEST_CASE("a server that is not there, or says nothing, is told apart") {
  const LeakCheck leaks;
  const auto transport = make_curl_transport();
  std::string nowhere;
  {
    const RawServer gone([](int, int, const std::string&) { return Reply{}; });
    nowhere = gone.url();
  }
  Fetch refused(nowhere);
  refused.run(*transport);
  CHECK(refused.request.outcome == HttpOutcome::unreached);
  CHECK_FALSE(refused.request.problem.empty());
  Fetch unknown("http://no-such-host.invalid/");
  unknown.run(*transport);
  CHECK(unknown.request.outcome == HttpOutcome::unreached);
  RawServer silent([](int, int, const std::string&) {
    return Reply{good(0, 1000).substr(0, 600), Then::stall};
  });
  Fetch late(silent, 0, 1000);
  late.settings.stall_timeout = milliseconds(1000);
  late.run(*transport);
  CHECK(late.request.outcome == HttpOutcome::late);
}

TEST_CASE("the usual variables of the environment name a proxy") {
  const LeakCheck leaks;
  RawServer proxy([](int, int, const std::string& head) {
    CHECK(head.starts_with("GET http://storage.invalid/key HTTP/1.1\r\n"));
    return Reply{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
  });
  ::setenv("http_proxy", proxy.url("").c_str(), 1);
  const auto transport = make_curl_transport();
  Fetch fetch("http://storage.invalid/key");
  fetch.run(*transport);
  ::unsetenv("http_proxy");
  CHECK(fetch.request.outcome == HttpOutcome::replied);
}

#ifndef __SANITIZE_THREAD__  // which allows no thread in a forked child
TEST_CASE("a forked child has connections of its own, and leaves its parent's alone") {
  const LeakCheck leaks;
  RawServer server([](int, int number, const std::string&) { return Reply{good(number, 1000)}; });
  const std::shared_ptr<Transport> transport = shared_curl_transport();
  CHECK(shared_curl_transport() == transport);
  Fetch before(server, 0, 1000);
  before.run(*transport);
  CHECK(before.is_right());
  CHECK(run_in_child([&] {
          Fetch mine(server, 1, 1000);
          bool is_refused = false;
          try {
            transport->submit(mine.request);
          } catch (const Error& error) {
            is_refused = error.kind() == ErrorKind::config;
          }
          require_in_child(is_refused, "the parent's transport serves the child");
          const std::shared_ptr<Transport> own = shared_curl_transport();
          require_in_child(own != transport, "the child has its parent's transport");
          mine.run(*own);
          require_in_child(mine.is_right(), "the child's own transport does not serve it");
        }) == "");
  Fetch after(server, 2, 1000);
  after.run(*transport);
  CHECK(after.is_right());
  CHECK(server.connections() == 2);
}
#endif

TEST_CASE("connections are a number that can be") {
  for (const int connections : {0, -1, 5000}) {
    CHECK(caught([&] { make_curl_transport({.connections = connections}); }).kind ==
          ErrorKind::config);
  }
}

}  // namespace s3io::testing::curl_transport_test
