// HTTP by libcurl against a server that sends any bytes: what is stored, what is refused, and which
// connections are used again.
#include "http/curl_transport.h"

#include <doctest/doctest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <future>

#include "forbid.h"
#include "leak_check.h"
#include "range_fetch.h"

namespace s3io::testing::curl_transport_test {

TEST_CASE("ranges land where they belong, one after the other on one connection") {
  const LeakCheck leaks;
  RawServer server([](int, int number, const std::string& head) {
    CHECK(head.starts_with("GET /bucket/../a%20b HTTP/1.1\r\nHost: 127.0.0.1"));
    for (const char* name : {"Accept", "Expect", "Content-Type", "accept-encoding"}) {
      CHECK(head.find(name) == std::string::npos);
    }
    CHECK(head.find("\r\nUser-Agent: torch_s3io\r\n") != std::string::npos);
    CHECK(head.find("\r\nx-amz-empty:\r\n") != std::string::npos);
    return Reply{good(number * 1000, 100'000)};
  });
  const auto transport = make_curl_transport();
  for (int number = 0; number < 20; ++number) {
    Fetch fetch(server, number * 1000, 100'000);
    fetch.request.url = server.url("/bucket/../a%20b");
    fetch.request.headers.push_back({"x-amz-empty", ""});
    fetch.run(*transport);
    CHECK(fetch.is_right());
    CHECK(fetch.inbox.bytes == 100'000);
  }
  CHECK(server.connections() == 1);
}

int64_t reactor_threads() {
  const std::vector<std::string> numbers = entries_of("/proc/self/task");
  return std::ranges::count_if(numbers, [](const std::string& number) {
    std::string name;
    std::getline(std::ifstream("/proc/self/task/" + number + "/comm"), name);
    return name == "s3io-http";
  });
}

TEST_CASE("many at once share so many connections as there may be") {
  int threads = 1;
  SUBCASE("by one thread") {}
  SUBCASE("by two") { threads = 2; }
  SUBCASE("by as many as there are connections") { threads = 9; }
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string& head) {
    const int64_t offset = std::stoll(head.substr(head.find("offset: ") + 8));
    return Reply{good(offset, 200'000)};
  });
  const auto transport = make_curl_transport({.connections = 3, .threads = threads});
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
  CHECK(holds_soon([&] { return reactor_threads() == std::min(threads, 3); }));
}

TEST_CASE("threads share the connections, of which none is idle where a request waits") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string&) { return Reply{"", Then::stall}; });
  for (const int connections : {1, 3, 5}) {
    auto transport = make_curl_transport({.connections = connections, .threads = 2});
    const int before = server.requests();
    std::vector<std::unique_ptr<Fetch>> fetches;
    for (int number = 0; number < connections + 2; ++number) {
      fetches.push_back(std::make_unique<Fetch>(server, 0, 1000));
      transport->submit(fetches.back()->request);
    }
    CHECK(holds_soon([&] { return server.requests() - before == connections; }));
    transport.reset();
    for (const auto& fetch : fetches) fetch->wait();
  }
}

TEST_CASE("a second thread is begun by the second request in hand, and gives back what it has") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string&) { return Reply{"", Then::stall}; });
  auto transport = make_curl_transport({.connections = 4, .threads = 2});
  Fetch first(server, 0, 1000), second(server, 0, 1000), third(server, 0, 1000);
  transport->submit(first.request);
  CHECK(holds_soon([&] { return server.requests() == 1; }));
  CHECK(reactor_threads() == 1);
  transport->submit(second.request);
  CHECK(holds_soon([&] { return reactor_threads() == 2; }));
  transport->cancel(second.request);
  second.wait();
  CHECK(second.request.outcome == HttpOutcome::cancelled);
  transport->submit(third.request);
  transport.reset();
  for (Fetch* one : {&first, &third}) {
    one->wait();
    CHECK(one->request.outcome == HttpOutcome::cancelled);
  }
}

TEST_CASE("where no second thread can be started, the first one has all requests") {
  const LeakCheck leaks;
  RawServer server([](int, int, const std::string& head) {
    return head.starts_with("GET /lost") ? Reply{"", Then::stall} : Reply{good(0, 1000)};
  });
  const auto transport = make_curl_transport({.connections = 6, .threads = 2});
  Fetch first(server, 0, 1000), second(server, 0, 1000), third(server, 0, 1000);
  for (Fetch* one : {&first, &second}) one->request.url = server.url("/lost");
  transport->submit(first.request);
  // What is forbidden is so for the thread that asked for it.
  std::async(std::launch::async, [&] {
    for (const unsigned system_call : {SYS_clone3, SYS_clone}) forbid(system_call, EAGAIN);
    transport->submit(second.request);
    transport->submit(third.request);
    const auto none = make_curl_transport({.connections = 4, .threads = 2});
    Fetch fourth(server, 0, 1000);
    const Caught error = caught([&] { none->submit(fourth.request); });
    CHECK(error.kind == ErrorKind::out_of_memory);
    CHECK(error.says("cannot start the thread for object storage"));
  }).get();
  third.wait();
  CHECK(third.is_right());
  CHECK(reactor_threads() == 1);
  for (Fetch* one : {&first, &second}) {
    transport->cancel(one->request);
    one->wait();
    CHECK(one->request.outcome == HttpOutcome::cancelled);
  }
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

TEST_CASE("a part of an object is no reply to a request for something else") {
  const LeakCheck leaks;
  // Such as what comes late, once the connection has a list to bring.
  RawServer server([](int, int, const std::string&) { return Reply{good(0, 1000)}; });
  const auto transport = make_curl_transport();
  for (int number = 1; number <= 2; ++number) {
    Fetch list(server.url());
    list.run(*transport);
    CHECK(list.request.outcome == HttpOutcome::refused);
    CHECK(list.request.problem.find("part of an object") != std::string::npos);
    CHECK(list.request.text.empty());
    CHECK(server.connections() == number);
  }
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
  const std::string payload = text_of(0, 300'000);
  for (const std::string_view method : {"PUT", "POST", "HEAD", "DELETE"}) {
    Fetch fetch(server.url());
    fetch.request.method = method;
    if (method == "PUT" || method == "POST")
      fetch.request.payload = std::as_bytes(std::span(payload));
    fetch.run(*transport);
    CHECK(fetch.request.outcome == HttpOutcome::replied);
    CHECK(heads.back().starts_with(method));
    const bool has_length = heads.back().find("Content-Length: 300000\r\n") != std::string::npos;
    CHECK(has_length == !fetch.request.payload.empty());
    CHECK(heads.back().ends_with("\r\n\r\n" + (has_length ? payload : "")));
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
  CHECK(unknown.request.outcome == HttpOutcome::misnamed);
  RawServer silent([](int, int, const std::string&) {
    return Reply{good(0, 1000).substr(0, 600), Then::stall};
  });
  Fetch late(silent, 0, 1000);
  late.settings.stall_timeout = milliseconds(1000);
  late.run(*transport);
  CAPTURE(late.request.problem);
  CHECK(late.request.outcome == HttpOutcome::late);
  // A reply has a time as a whole, too: here before it stands still for long enough.
  Fetch slow(silent, 0, 1000);
  slow.settings.connect_timeout = milliseconds(900);
  slow.settings.stall_timeout = milliseconds(1);
  slow.run(*transport);
  CHECK(slow.request.outcome == HttpOutcome::late);
  CHECK(slow.request.problem.find("timed out") != std::string::npos);
}

TEST_CASE("a request with patience waits longer than others for a server that stands still") {
  const LeakCheck leaks;
  std::promise<void> others_are_late;
  std::shared_future<void> may_answer = others_are_late.get_future().share();
  RawServer server([&](int, int, const std::string& head) {
    if (head.starts_with("GET /other")) return Reply{"", Then::stall};
    may_answer.wait();
    return Reply{good(0, 1000)};
  });
  const auto transport = make_curl_transport();
  Fetch patient(server, 0, 1000), other(server, 0, 1000);
  other.request.url = server.url("/other");
  for (Fetch* one : {&patient, &other}) {  // who is patient began before
    one->settings.connect_timeout = milliseconds(900);
    one->settings.stall_timeout = milliseconds(1);
  }
  patient.request.patience = milliseconds(60'000);
  transport->submit(patient.request);
  CHECK(holds_soon([&] { return server.requests() == 1; }));
  other.run(*transport);
  CHECK(other.request.outcome == HttpOutcome::late);
  others_are_late.set_value();
  patient.wait();
  CHECK(patient.is_right());
}

TEST_CASE("the usual variables of the environment name a proxy") {
  const LeakCheck leaks;
  const std::string kPassword = "password-of-proxy";
  RawServer proxy([](int, int, const std::string& head) {
    CHECK(head.starts_with("GET http://storage.invalid/key HTTP/1.1\r\n"));
    CHECK(head.find("\r\nProxy-Authorization: Basic ") != std::string::npos);
    return Reply{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
  });
  const std::string url = proxy.url("");
  ::setenv("http_proxy", ("http://user-1:" + kPassword + "@" + url.substr(7)).c_str(), 1);
  const auto transport = make_curl_transport();
  Fetch fetch("http://storage.invalid/key"), direct("http://storage.invalid/key");
  ::unsetenv("http_proxy");  // settings know it from when they were made
  direct.settings = {};
  fetch.run(*transport);
  direct.run(*transport);
  CHECK(fetch.request.outcome == HttpOutcome::replied);
  CHECK(direct.request.outcome == HttpOutcome::misnamed);
  const std::string shown = fetch.settings.proxies.without_secrets(
      "cannot use http://user-1:" + kPassword + "@proxy, user-10");
  CHECK(shown == "cannot use http://...:...@proxy, user-10");
}

TEST_CASE("a server that does not answer leaves connections to others") {
  const LeakCheck leaks;
  RawServer silent([](int, int, const std::string&) { return Reply{"", Then::stall}; });
  RawServer well([](int, int, const std::string&) { return Reply{good(0, 1000)}; });
  const auto transport = make_curl_transport({.connections = 2});
  std::vector<std::unique_ptr<Fetch>> waiting;
  for (int number = 0; number < 5; ++number) {
    waiting.push_back(std::make_unique<Fetch>(silent, 0, 1000));
    transport->submit(waiting.back()->request);
  }
  CHECK(holds_soon([&] { return silent.requests() == 2; }));
  Fetch other(well, 0, 1000);
  transport->submit(other.request);  // the last one of all
  transport->cancel(waiting.front()->request);
  other.wait();
  CHECK(other.is_right());
  for (const auto& one : waiting) {
    if (one != waiting.front()) transport->cancel(one->request);
    one->wait();
  }
}

TEST_CASE("connections are a number that can be") {
  for (const int connections : {0, -1, 5000}) {
    CHECK(caught([&] { make_curl_transport({.connections = connections}); }).kind ==
          ErrorKind::config);
  }
}

}  // namespace s3io::testing::curl_transport_test
