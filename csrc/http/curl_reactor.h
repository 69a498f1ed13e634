// One thread, and the connections that it serves by libcurl's multi interface. Other threads lock,
// and wake it.
#pragma once

#include <curl/curl.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "http/curl_exchange.h"
#include "http/transport.h"
#include "http/waiting_requests.h"

namespace s3io {

class CurlReactor {
 public:
  // `connections`: most at once; further requests wait.
  explicit CurlReactor(int connections);
  CurlReactor(const CurlReactor&) = delete;
  CurlReactor& operator=(const CurlReactor&) = delete;
  ~CurlReactor() { stop(); }

  // As those of a Transport. The thread starts with the first request.
  void submit(HttpRequest& request);
  void cancel(HttpRequest& request) noexcept;
  // Ends the thread; what is in flight, and what comes later, is given back as cancelled.
  void stop();
  // Less than none where requests wait for one.
  int free_connections() const { return connections_ - in_hand_.load(std::memory_order_relaxed); }

 private:
  struct CloseMulti {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
  };

  static CURLM* make_multi(int connections);
  void append(HttpRequest& request);
  void start_thread();
  void run();
  bool begin_and_cancel();
  bool begin_and_give_back();
  void wait(HttpRequest& request) noexcept;
  void begin(CurlExchange& exchange, HttpRequest& request) noexcept;
  void add(CurlExchange& exchange) noexcept;
  void give_back_unbegun(CurlExchange& exchange, std::string_view problem) noexcept;
  void give_back(HttpRequest& request) noexcept;
  void leave(CurlExchange& exchange);
  bool take_back();

  const int connections_;
  CurlSockets sockets_;  // outlives the handles
  const std::unique_ptr<CURLM, CloseMulti> multi_;
  std::vector<std::unique_ptr<CurlExchange>> exchanges_;
  std::vector<CurlExchange*> idle_;     // the thread's
  std::vector<CurlExchange*> leaving_;  // the same: their requests are back
  WaitingRequests waiting_;             // the thread's
  std::atomic<int> in_hand_{0};         // requests that are not back yet
  std::mutex mutex_;                    // guards what follows
  std::thread thread_;
  bool is_stopping_ = false;
  HttpRequest* first_ = nullptr;  // those that the thread has not seen
  HttpRequest* last_ = nullptr;
};

}  // namespace s3io
