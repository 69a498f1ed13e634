#include "http/curl_reactor.h"

#include <pthread.h>
#include <signal.h>

#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include "base/fork_gate.h"
#include "base/limits.h"

namespace s3io {
namespace {

constexpr milliseconds kIdleSlice{60'000};
constexpr milliseconds kBusySlice{1'000};

}  // namespace

CurlReactor::CurlReactor(int connections)
    : connections_(connections), multi_(make_multi(connections)) {
  leaving_.reserve(static_cast<size_t>(connections));
  for (int number = 0; number < connections; ++number) {
    exchanges_.push_back(std::make_unique<CurlExchange>(sockets_));
    idle_.push_back(exchanges_.back().get());
  }
}

CURLM* CurlReactor::make_multi(int connections) {
  CURLM* multi = curl_multi_init();
  if (multi == nullptr) throw std::bad_alloc();
  curl_multi_setopt(multi, CURLMOPT_PIPELINING, long{CURLPIPE_NOTHING});
  // As many as there are exchanges. Else libcurl closes some whenever fewer are at work.
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, long{connections});
  curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, long{connections});
  return multi;
}

void CurlReactor::stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  curl_multi_wakeup(multi_.get());
  if (thread_.joinable()) thread_.join();
}

void CurlReactor::submit(HttpRequest& request) {
  request.clear_reply();
  {
    const std::lock_guard lock(mutex_);
    if (!is_stopping_) start_thread();
    in_hand_.fetch_add(1, std::memory_order_relaxed);
    if (is_stopping_) {
      request.outcome = HttpOutcome::cancelled;
      give_back(request);
      return;
    }
    append(request);
  }
  curl_multi_wakeup(multi_.get());
}

void CurlReactor::cancel(HttpRequest& request) noexcept {
  {
    const std::lock_guard lock(mutex_);
    request.is_cancel_wanted = true;
  }
  curl_multi_wakeup(multi_.get());
}

void CurlReactor::append(HttpRequest& request) {
  request.next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = &request;
  last_ = &request;
}

void CurlReactor::start_thread() {
  if (thread_.joinable()) return;
  // A thread begins with the signals of who makes it: this one gets none. Writing to a connection
  // that the server closed would be one (SIGPIPE).
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "s3io-http");
      run();
    });
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw thread_error("the thread for object storage", error.code().value());
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void CurlReactor::run() {
  while (true) {
    {
      const NotWhileForking at_work;
      if (!begin_and_cancel()) return;
      int running = 0;
      curl_multi_perform(multi_.get(), &running);
      if (take_back()) continue;  // others may wait for their place
    }
    const bool is_idle = idle_.size() == exchanges_.size();
    const milliseconds slice = is_idle ? kIdleSlice : kBusySlice;
    curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(slice.count()), nullptr);
  }
}

// False when it is to end: everything is back then.
bool CurlReactor::begin_and_cancel() {
  bool goes_on = begin_and_give_back();
  while (!leaving_.empty()) {  // who leaves makes room for who waits
    // It may have to wait for a name that is being looked up: without the lock.
    for (CurlExchange* exchange : leaving_) leave(*exchange);
    leaving_.clear();
    goes_on = begin_and_give_back();
  }
  return goes_on;
}

bool CurlReactor::begin_and_give_back() {
  const std::lock_guard lock(mutex_);
  const auto is_unwanted = [&](const HttpRequest& request) {
    return request.is_cancel_wanted || is_stopping_;
  };
  for (const auto& exchange : exchanges_) {
    HttpRequest* const request = exchange->request();
    if (request == nullptr || !is_unwanted(*request)) continue;
    waiting_.end(*request);
    give_back(exchange->end_cancelled());
    leaving_.push_back(exchange.get());
  }
  for (HttpRequest* next = std::exchange(first_, nullptr); next != nullptr;) {
    HttpRequest& request = *next;
    next = request.next;
    wait(request);
  }
  for (HttpRequest* next = waiting_.remove_if(is_unwanted); next != nullptr;) {
    HttpRequest& request = *next;
    next = request.next;
    request.outcome = HttpOutcome::cancelled;
    give_back(request);
  }
  while (!idle_.empty()) {
    HttpRequest* const request = waiting_.take();
    if (request == nullptr) break;
    CurlExchange& exchange = *idle_.back();
    idle_.pop_back();
    begin(exchange, *request);
  }
  return !is_stopping_;
}

void CurlReactor::wait(HttpRequest& request) noexcept {
  try {
    waiting_.push(request);
  } catch (const std::exception&) {
    request.outcome = HttpOutcome::broken;  // for want of memory, so without a text
    give_back(request);
  }
}

void CurlReactor::begin(CurlExchange& exchange, HttpRequest& request) noexcept {
  try {
    exchange.begin(request);
    add(exchange);
  } catch (const std::exception& error) {
    give_back_unbegun(exchange, error.what());
  }
}

void CurlReactor::add(CurlExchange& exchange) noexcept {
  const CURLMcode result = curl_multi_add_handle(multi_.get(), exchange.easy());
  if (result != CURLM_OK) give_back_unbegun(exchange, curl_multi_strerror(result));
}

void CurlReactor::give_back_unbegun(CurlExchange& exchange, std::string_view problem) noexcept {
  HttpRequest& request = exchange.end_unbegun(problem);
  waiting_.end(request);
  idle_.push_back(&exchange);  // there is room for all
  give_back(request);
}

// From then on it is its owner's.
void CurlReactor::give_back(HttpRequest& request) noexcept {
  in_hand_.fetch_sub(1, std::memory_order_relaxed);
  request.inbox->put(request);
}

void CurlReactor::leave(CurlExchange& exchange) {
  curl_multi_remove_handle(multi_.get(), exchange.easy());
  idle_.push_back(&exchange);
}

// Whether any has ended.
bool CurlReactor::take_back() {
  bool has_any = false;
  int left = 0;
  while (CURLMsg* told = curl_multi_info_read(multi_.get(), &left)) {
    if (told->msg != CURLMSG_DONE) continue;
    const CURLcode result = told->data.result;
    char* own = nullptr;
    curl_easy_getinfo(told->easy_handle, CURLINFO_PRIVATE, &own);
    auto& exchange = *reinterpret_cast<CurlExchange*>(own);
    has_any = true;
    if (exchange.must_begin_again(result)) {
      curl_multi_remove_handle(multi_.get(), exchange.easy());
      add(exchange);
      continue;
    }
    HttpRequest& request = exchange.end(result);
    waiting_.end(request);
    leave(exchange);
    give_back(request);
  }
  return has_any;
}

}  // namespace s3io
