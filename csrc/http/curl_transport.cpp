#include "http/curl_transport.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <map>
#include <system_error>
#include <thread>
#include <utility>

#include "base/fork_owned.h"
#include "base/limits.h"
#include "http/curl_exchange.h"
#include "http/waiting_requests.h"

namespace s3io {
namespace {

constexpr int kMostConnections = 1024;
constexpr unsigned kLeastVersion = 0x075000;  // has a place to look at a connection before its use
constexpr milliseconds kIdleSlice{60'000};
constexpr milliseconds kBusySlice{1'000};

// The thread, and all that libcurl has. Other threads lock, and wake it.
class Reactor {
 public:
  explicit Reactor(int connections) : multi_(make_multi(connections)) {
    for (int number = 0; number < connections; ++number) {
      leaving_.reserve(static_cast<size_t>(connections));
      exchanges_.push_back(std::make_unique<CurlExchange>(sockets_));
      idle_.push_back(exchanges_.back().get());
    }
  }
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  ~Reactor() { stop(); }

  // Ends the thread; what is in flight, and what comes later, is given back as cancelled.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    curl_multi_wakeup(multi_.get());
    if (thread_.joinable()) thread_.join();
  }

  void submit(HttpRequest& request) {
    request.clear_reply();
    {
      const std::lock_guard lock(mutex_);
      if (is_stopping_) {
        request.outcome = HttpOutcome::cancelled;
        request.inbox->put(request);
        return;
      }
      start_thread();
      append(request);
    }
    curl_multi_wakeup(multi_.get());
  }

  void cancel(HttpRequest& request) noexcept {
    {
      const std::lock_guard lock(mutex_);
      request.is_cancel_wanted = true;
    }
    curl_multi_wakeup(multi_.get());
  }

 private:
  struct CloseMulti {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
  };

  static CURLM* make_multi(int connections) {
    CURLM* multi = curl_multi_init();
    if (multi == nullptr) throw std::bad_alloc();
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, long{CURLPIPE_NOTHING});
    // As many as there are exchanges. Else libcurl closes some whenever fewer are at work.
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, long{connections});
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, long{connections});
    return multi;
  }

  void append(HttpRequest& request) {
    request.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &request;
    last_ = &request;
  }

  void start_thread() {
    if (thread_.joinable()) return;
    // A thread begins with the signals of who makes it: this one gets none. Writing to a connection
    // that the server closed would be one (SIGPIPE).
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& error) {
      ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw thread_error("the thread for object storage", error.code().value());
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void run() {
    while (begin_and_cancel()) {
      int running = 0;
      curl_multi_perform(multi_.get(), &running);
      if (take_back()) continue;  // others may wait for their place
      const bool is_idle = idle_.size() == exchanges_.size();
      const milliseconds slice = is_idle ? kIdleSlice : kBusySlice;
      curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(slice.count()), nullptr);
    }
  }

  // False when it is to end: everything is back then.
  bool begin_and_cancel() {
    bool goes_on = begin_and_give_back();
    while (!leaving_.empty()) {  // who leaves makes room for who waits
      // It may have to wait for a name that is being looked up: without the lock.
      for (CurlExchange* exchange : leaving_) leave(*exchange);
      leaving_.clear();
      goes_on = begin_and_give_back();
    }
    return goes_on;
  }

  bool begin_and_give_back() {
    const std::lock_guard lock(mutex_);
    const auto is_unwanted = [&](const HttpRequest& request) {
      return request.is_cancel_wanted || is_stopping_;
    };
    for (const auto& exchange : exchanges_) {
      HttpRequest* const request = exchange->request();
      if (request == nullptr || !is_unwanted(*request)) continue;
      waiting_.end(*request);
      exchange->give_back_cancelled();
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
      request.inbox->put(request);
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

  void wait(HttpRequest& request) noexcept {
    try {
      waiting_.push(request);
    } catch (const std::exception&) {
      request.outcome = HttpOutcome::broken;  // for want of memory, so without a text
      request.inbox->put(request);
    }
  }

  void begin(CurlExchange& exchange, HttpRequest& request) noexcept {
    try {
      exchange.begin(request);
      add(exchange);
    } catch (const std::exception& error) {
      give_back_unbegun(exchange, error.what());
    }
  }

  void add(CurlExchange& exchange) noexcept {
    const CURLMcode result = curl_multi_add_handle(multi_.get(), exchange.easy());
    if (result != CURLM_OK) give_back_unbegun(exchange, curl_multi_strerror(result));
  }

  void give_back_unbegun(CurlExchange& exchange, std::string_view problem) noexcept {
    HttpRequest& request = exchange.end_unbegun(problem);
    waiting_.end(request);
    idle_.push_back(&exchange);  // there is room for all
    request.inbox->put(request);
  }

  void leave(CurlExchange& exchange) {
    curl_multi_remove_handle(multi_.get(), exchange.easy());
    idle_.push_back(&exchange);
  }

  // Whether any has ended.
  bool take_back() {
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
      request.inbox->put(request);
    }
    return has_any;
  }

  CurlSockets sockets_;  // outlives the handles
  const std::unique_ptr<CURLM, CloseMulti> multi_;
  std::vector<std::unique_ptr<CurlExchange>> exchanges_;
  std::vector<CurlExchange*> idle_;     // the thread's
  std::vector<CurlExchange*> leaving_;  // the same: their requests are back
  WaitingRequests waiting_;             // the thread's
  std::mutex mutex_;                    // guards what follows
  std::thread thread_;
  bool is_stopping_ = false;
  HttpRequest* first_ = nullptr;  // those that the thread has not seen
  HttpRequest* last_ = nullptr;
};

class CurlTransport final : public Transport {
 public:
  explicit CurlTransport(const CurlOptions& options) {
    if (options.connections < 1 || options.connections > kMostConnections) {
      throw Error(ErrorKind::config, message("connections must be between 1 and ", kMostConnections,
                                             ", not ", options.connections));
    }
    const curl_version_info_data* const found = curl_version_info(CURLVERSION_NOW);
    if (found->version_num < kLeastVersion) {
      throw Error(ErrorKind::engine, message("object storage needs libcurl 7.80 or newer, not ",
                                             found->version, "; LD_LIBRARY_PATH may name it"));
    }
    static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (started != CURLE_OK) {
      throw Error(ErrorKind::engine,
                  message("libcurl does not start: ", curl_easy_strerror(started)));
    }
    reactor_ = std::make_unique<Reactor>(options.connections);
  }

  void submit(HttpRequest& request) override {
    if (!reactor_.is_here()) {
      throw Error(ErrorKind::config,
                  "these connections belong to the parent process; make a store of its own after "
                  "fork");
    }
    reactor_->submit(request);
  }
  void cancel(HttpRequest& request) noexcept override {
    if (reactor_.is_here()) reactor_->cancel(request);
  }
  void stop() {
    if (reactor_.is_here()) reactor_->stop();
  }

 private:
  ForkOwned<Reactor> reactor_;
};

// Of one process: a forked child leaves its parent's alone, whoever has the lock.
struct SharedTransport {
  const HomeProcess home = {};
  std::mutex mutex;                                        // guards what follows
  std::map<int, std::weak_ptr<CurlTransport>> transports;  // by their connections
};

std::atomic<SharedTransport*> the_shared{nullptr};

}  // namespace

std::unique_ptr<Transport> make_curl_transport(const CurlOptions& options) {
  return std::make_unique<CurlTransport>(options);
}

std::shared_ptr<Transport> shared_curl_transport(const CurlOptions& options) {
  SharedTransport* mine = the_shared.load();
  while (mine == nullptr || !mine->home.is_here()) {
    auto made = std::make_unique<SharedTransport>();
    if (the_shared.compare_exchange_strong(mine, made.get())) mine = made.release();
  }
  const std::lock_guard lock(mine->mutex);
  std::weak_ptr<CurlTransport>& known = mine->transports[options.connections];
  std::shared_ptr<CurlTransport> transport = known.lock();
  if (transport == nullptr) {
    transport = std::make_shared<CurlTransport>(options);
    known = transport;
  }
  return transport;
}

void stop_shared_curl_transports() {
  SharedTransport* const mine = the_shared.load();
  if (mine == nullptr || !mine->home.is_here()) return;
  std::vector<std::shared_ptr<CurlTransport>> transports;
  {
    const std::lock_guard lock(mine->mutex);
    for (const auto& [_, known] : mine->transports) transports.push_back(known.lock());
  }
  for (const auto& transport : transports) {
    if (transport != nullptr) transport->stop();
  }
}

}  // namespace s3io
