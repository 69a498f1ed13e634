#include "http/curl_exchange.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>

#include "base/error.h"

namespace s3io {
namespace {

constexpr long kBufferBytes = 256L << 10;
constexpr long kLeastBytesPerSecond = 1024;

int local_port_of(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

bool may_be_used_again(int status) {
  return (status >= 200 && status <= 299) || status == 404 || status == 412;
}

HttpOutcome outcome_of(CURLcode result, CURL* easy) {
  switch (result) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PROXY:
      return HttpOutcome::unreached;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return HttpOutcome::untrusted;
    case CURLE_OPERATION_TIMEDOUT: {
      curl_off_t connected_us = 0;
      curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
      return connected_us > 0 ? HttpOutcome::late : HttpOutcome::unreached;
    }
    default:
      return HttpOutcome::broken;
  }
}

}  // namespace

curl_socket_t CurlSockets::open(void* self, curlsocktype /*purpose*/, curl_sockaddr* address) {
  const int fd = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (fd >= 0) static_cast<CurlSockets*>(self)->sockets_.push_back({.fd = fd});
  return fd;
}

int CurlSockets::close(void* self, curl_socket_t socket) {
  std::erase_if(static_cast<CurlSockets*>(self)->sockets_,
                [&](const Socket& one) { return one.fd == socket; });
  return ::close(socket);
}

bool CurlSockets::is_unclean(int local_port) {
  for (Socket& socket : sockets_) {
    if (socket.local_port == 0) socket.local_port = local_port_of(socket.fd);
    if (socket.local_port != local_port) continue;
    if (!std::exchange(socket.was_in_use, true)) return false;
    char byte = 0;
    return ::recv(socket.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
  }
  return false;
}

CurlExchange::CurlExchange(CurlSockets& sockets) : easy_(curl_easy_init()), sockets_(sockets) {
  if (easy_ == nullptr) throw std::bad_alloc();
}

template <typename Value>
void CurlExchange::set(CURLoption option, Value value) {
  // Fails where memory runs out, and for an option that this libcurl was built without.
  const CURLcode result = curl_easy_setopt(easy_.get(), option, value);
  if (result == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
}

void CurlExchange::begin(HttpRequest& request) {
  request_ = &request;
  has_head_ = is_unclean_ = false;
  error_[0] = '\0';
  curl_easy_reset(easy_.get());
  set(CURLOPT_PRIVATE, static_cast<void*>(this));
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_ERRORBUFFER, error_.data());
  set(CURLOPT_HEADERFUNCTION, &on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  set_method();
  set_headers();
  set_connection();
}

void CurlExchange::set_method() {
  const HttpRequest& request = *request_;
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET") {
    set(CURLOPT_CUSTOMREQUEST, std::string(request.method).c_str());
    if (request.method == "DELETE") return;
    // Sent from where it lies.
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.payload.size()));
    set(CURLOPT_POSTFIELDS,
        request.payload.empty() ? "" : reinterpret_cast<const char*>(request.payload.data()));
  }
}

void CurlExchange::set_headers() {
  const std::vector<HttpHeader>& headers = request_->headers;
  // libcurl's own: without a value it leaves them out.
  constexpr const char* kLeftOut[] = {"Accept:", "Expect:", "Content-Type:"};
  lines_.resize(std::max(lines_.size(), headers.size() + std::size(kLeftOut)));
  list_.resize(lines_.size());
  size_t count = 0;
  bool has_type = false;
  for (const HttpHeader& header : headers) {
    has_type = has_type || header.name == "content-type";
    std::string& line = lines_[count++];
    line = header.name;
    line += ": ";
    line += header.value;
  }
  for (const char* line : kLeftOut) {
    if (line[0] != 'C' || !has_type) lines_[count++] = line;
  }
  for (size_t number = 0; number < count; ++number) {
    list_[number] = {lines_[number].data(), number + 1 < count ? &list_[number + 1] : nullptr};
  }
  set(CURLOPT_HTTPHEADER, list_.data());
}

void CurlExchange::set_connection() {
  const HttpSettings& settings = *request_->settings;
  set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(CURLOPT_SSL_ENABLE_ALPN, 0L);
  set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  if (!settings.ca_file.empty()) set(CURLOPT_CAINFO, settings.ca_file.c_str());
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_BUFFERSIZE, kBufferBytes);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings.connect_timeout.count()));
  set(CURLOPT_LOW_SPEED_LIMIT, kLeastBytesPerSecond);
  set(CURLOPT_LOW_SPEED_TIME,
      static_cast<long>(std::max<int64_t>(1, settings.stall_timeout.count() / 1000)));
  set(CURLOPT_MAXAGE_CONN, static_cast<long>(settings.max_idle_s));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
  if (request_->is_fresh) {  // perhaps at another address, too
    set(CURLOPT_FRESH_CONNECT, 1L);
    set(CURLOPT_DNS_CACHE_TIMEOUT, 0L);
  }
  set(CURLOPT_OPENSOCKETFUNCTION, &CurlSockets::open);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&sockets_));
  set(CURLOPT_CLOSESOCKETFUNCTION, &CurlSockets::close);
  set(CURLOPT_CLOSESOCKETDATA, static_cast<void*>(&sockets_));
#if LIBCURL_VERSION_NUM >= 0x075000
  set(CURLOPT_PREREQFUNCTION, &on_connection);
  set(CURLOPT_PREREQDATA, static_cast<void*>(this));
#else  // there is no place to look whether it is clean: each connection serves once
  set(CURLOPT_FORBID_REUSE, 1L);
#endif
}

int CurlExchange::on_connection(void* self, char*, char*, int, int local_port) {
  auto& exchange = *static_cast<CurlExchange*>(self);
  exchange.is_unclean_ = exchange.sockets_.is_unclean(local_port);
  return exchange.is_unclean_ ? 1 : 0;  // CURL_PREREQFUNC_ABORT closes it
}

bool CurlExchange::must_begin_again(CURLcode result) {
  if (result != CURLE_ABORTED_BY_CALLBACK || !std::exchange(is_unclean_, false)) return false;
  set(CURLOPT_FRESH_CONNECT, 1L);
  return true;
}

size_t CurlExchange::on_header(char* data, size_t size, size_t count, void* self) noexcept {
  return static_cast<CurlExchange*>(self)->add_line({data, size * count});
}

// Anything but the length ends the transfer and closes the connection.
size_t CurlExchange::add_line(std::string_view line) {
  if (request_ == nullptr) return 0;
  if (has_head_) return line.size();  // a trailer, which says nothing to us
  ResponseHead& head = request_->head;
  const bool is_end = line == "\r\n" || line == "\n";
  const bool is_well = head.add_line(line);
  if (is_well && !(is_end && head.status() >= 200)) return line.size();
  has_head_ = true;
  if (!request_->accept_head()) return 0;
  if (!may_be_used_again(head.status())) set(CURLOPT_FORBID_REUSE, 1L);
  return is_well ? line.size() : 0;
}

size_t CurlExchange::on_body(char* data, size_t size, size_t count, void* self) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(self);
  const size_t bytes = size * count;
  if (exchange.request_ == nullptr || !exchange.has_head_) return 0;
  const bool is_well = exchange.request_->add_body({reinterpret_cast<std::byte*>(data), bytes});
  return is_well ? bytes : bytes + 1;
}

HttpRequest& CurlExchange::end(CURLcode result) {
  HttpRequest& request = *std::exchange(request_, nullptr);
  if (request.outcome == HttpOutcome::refused) return request;
  if (result == CURLE_OK && has_head_) {
    request.finish_body();
    return request;
  }
  request.outcome = outcome_of(result, easy_.get());
  if (result == CURLE_OK) {
    request.problem = "the reply ended within its headers";
    return request;
  }
  request.problem = error_[0] != '\0' ? error_.data() : curl_easy_strerror(result);
  return request;
}

void CurlExchange::give_back_cancelled() {
  HttpRequest& request = *std::exchange(request_, nullptr);
  request.outcome = HttpOutcome::cancelled;
  request.inbox->put(request);
}

}  // namespace s3io
