// One handle of libcurl, and the request that it has in hand.
// The reactor's thread alone.
#pragma once

#include <curl/curl.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "http/curl_sockets.h"
#include "http/transport.h"

namespace s3io {

class CurlExchange {
 public:
  explicit CurlExchange(CurlSockets& sockets);

  CURL* easy() const { return easy_.get(); }
  HttpRequest* request() const { return request_; }

  // The handle is then ready to be added to a multi handle.
  void begin(HttpRequest& request);
  // Whether it ended before anything was sent, since its connection was unclean: once more then.
  bool must_begin_again(CURLcode result);
  // Says in the request how it went. The request is no longer in hand.
  HttpRequest& end(CURLcode result) noexcept;
  // The same where it could not even begin.
  HttpRequest& end_unbegun(std::string_view problem) noexcept;
  // The same at any time: not a byte is stored any more.
  HttpRequest& end_cancelled() noexcept;

 private:
  struct Cleanup {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  };

  template <typename Value>
  void set(CURLoption option, Value value);
  void set_method();
  void set_headers();
  void set_connection();
  void set_bounds();
  void set_deadline();
  bool is_tls() const;
  const std::string& proxy() const;
  bool may_be_used_again() const;
  size_t add_line(std::string_view line);

  static size_t on_header(char* data, size_t size, size_t count, void* self) noexcept;
  static size_t on_body(char* data, size_t size, size_t count, void* self) noexcept;
  static int on_connection(void* self, char* remote, char* local, int remote_port, int local_port);

  const std::unique_ptr<CURL, Cleanup> easy_;
  CurlSockets& sockets_;
  HttpRequest* request_ = nullptr;
  bool has_head_ = false;
  bool is_fresh_ = false;  // on a new connection
  bool is_unclean_ = false;
  std::vector<std::string> lines_;  // memory that is used again
  std::vector<curl_slist> list_;    // of lines_
  std::array<char, CURL_ERROR_SIZE> error_{};
};

}  // namespace s3io
