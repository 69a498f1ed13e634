// Requests by libcurl that are given up: one by one, with their transport, and by a fork.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <netdb.h>

#include <condition_variable>
#include <mutex>

#include "range_fetch.h"

namespace s3io::testing::curl_cancel_test {

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
    std::vector<Bytes> when_back;
    for (const auto& fetch : fetches) {
      fetch->wait();
      when_back.push_back(fetch->memory);
      CHECK(fetch->rim_is_whole());
      const bool is_cancelled = fetch->request.outcome == HttpOutcome::cancelled;
      CHECK((is_cancelled || fetch->is_right()));
      cancelled += is_cancelled ? 1 : 0;
      CHECK(fetch->inbox.take() == nullptr);
    }
    for (size_t number = 0; number < fetches.size(); ++number) {
      CHECK(fetches[number]->memory == when_back[number]);
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

// The loader takes this one in place of libc's: a name server that hangs until it is let go.
std::mutex names_mutex;
std::condition_variable names_changed;
bool is_hanging = false;
int hung = 0;

TEST_CASE("a name server that hangs holds up nobody but those who ask it") {
  RawServer server([](int, int number, const std::string&) { return Reply{good(number, 1000)}; });
  is_hanging = true;
  {
    const auto transport = make_curl_transport();
    Fetch given_up("http://hangs.invalid/"), late("http://hangs.invalid/");
    late.settings.connect_timeout = milliseconds(100);
    transport->submit(given_up.request);
    CHECK(holds_soon([&] {
      const std::lock_guard lock(names_mutex);
      return hung == 1;
    }));
    late.run(*transport);
    CHECK(late.request.outcome == HttpOutcome::unreached);
    transport->cancel(given_up.request);
    given_up.wait();
    for (int number = 0; number < 3; ++number) {
      Fetch other(server, number, 1000);
      other.run(*transport);
      CHECK(other.is_right());
    }
  }  // the transport has ended while the names are still being looked up
  std::unique_lock lock(names_mutex);
  CHECK(hung >= 1);
  is_hanging = false;
  names_changed.notify_all();
  names_changed.wait(lock, [] { return hung == 0; });
}

#ifndef __SANITIZE_THREAD__  // which allows no thread in a forked child
TEST_CASE("a child that is forked with a request in flight leaves it alone") {
  RawServer server([](int, int, const std::string&) {
    return Reply{good(0, 2'000'000).substr(0, 1'000'000), Then::keep,
                 good(0, 2'000'000).substr(1'000'000)};
  });
  auto transport = make_curl_transport();
  Fetch fetch(server, 0, 2'000'000);
  transport->submit(fetch.request);
  CHECK(holds_soon([&] { return fetch.inbox.bytes > 900'000; }));
  CHECK(run_in_child([&] {
          transport->cancel(fetch.request);
          transport.reset();
        }) == "");
  server.send_later();
  fetch.wait();
  CHECK(fetch.is_right());
}

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

}  // namespace s3io::testing::curl_cancel_test

extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** result) {
  using namespace s3io::testing::curl_cancel_test;
  if (node != nullptr && std::string_view(node) == "hangs.invalid") {
    std::unique_lock lock(names_mutex);
    ++hung;
    names_changed.wait(lock, [] { return !is_hanging; });
    --hung;
    names_changed.notify_all();
    return EAI_AGAIN;
  }
  static const auto next =
      reinterpret_cast<decltype(&getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  return next(node, service, hints, result);
}
