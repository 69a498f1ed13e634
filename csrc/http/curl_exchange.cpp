#include "http/curl_exchange.h"

#include <algorithm>
#include <new>

#include "base/error.h"

namespace s3io {
namespace {

constexpr long kBufferBytes = 256L << 10;
constexpr long kLeastBytesPerSecond = 1024;
constexpr long kMostAgeSeconds = 300;  // of a connection: S3 has many addresses, which change
constexpr int64_t kLongText = int64_t{1} << 20;

HttpOutcome outcome_of(CURLcode result, CURL* easy) {
  switch (result) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_SSL_CONNECT_ERROR:
      return HttpOutcome::misnamed;
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
      return HttpOutcome::unreached;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
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

CurlExchange::CurlExchange(CurlSockets& sockets) : easy_(curl_easy_init()), sockets_(sockets) {
  if (easy_ == nullptr) throw std::bad_alloc();
}

template <typename Value>
void CurlExchange::set(CURLoption option, Value value) {
  const CURLcode result = curl_easy_setopt(easy_.get(), option, value);
  if (result == CURLE_OK) return;
  if (result == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
  throw Error(ErrorKind::engine, message("this libcurl refuses option ", static_cast<int>(option),
                                         ": ", curl_easy_strerror(result)));
}

void CurlExchange::begin(HttpRequest& request) {
  request_ = &request;
  has_head_ = is_unclean_ = is_fresh_ = false;
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
  set_bounds();
  set_connection();
  set_deadline();
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
    line += header.value.empty() ? ";" : ": ";  // without a value libcurl takes ";" alone
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

// What libcurl must not do by itself, and what it must not read.
void CurlExchange::set_bounds() {
  const HttpSettings& settings = *request_->settings;
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NETRC, long{CURL_NETRC_IGNORED});
  set(CURLOPT_HTTP09_ALLOWED, 0L);
  set(CURLOPT_USERAGENT, settings.user_agent.c_str());
  // The environment may change while this thread reads it. Empty texts are heeded, too.
  set(CURLOPT_PROXY, proxy().c_str());
  set(CURLOPT_NOPROXY, settings.proxies.exceptions.c_str());
  // These an older libcurl.so may not know. No URL of ours has another protocol.
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(easy_.get(), CURLOPT_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(easy_.get(), CURLOPT_PROTOCOLS, long{CURLPROTO_HTTP | CURLPROTO_HTTPS});
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
  // Else libcurl waits for the name server where a request ends, and so would all the others.
  curl_easy_setopt(easy_.get(), CURLOPT_QUICK_EXIT, 1L);
#endif
}

void CurlExchange::set_connection() {
  const HttpSettings& settings = *request_->settings;
  set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(CURLOPT_SSL_ENABLE_ALPN, 0L);
  set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  if (!settings.ca_file.empty()) {  // and no other
    set(CURLOPT_CAINFO, settings.ca_file.c_str());
    set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  // Of one that had a transfer without an end this is refused: it has its buffer already.
  curl_easy_setopt(easy_.get(), CURLOPT_BUFFERSIZE, kBufferBytes);
  set(CURLOPT_MAXAGE_CONN, static_cast<long>(settings.max_idle_s));
  set(CURLOPT_MAXLIFETIME_CONN, kMostAgeSeconds);
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
  is_fresh_ = request_->is_fresh;
  if (is_fresh_) set(CURLOPT_DNS_CACHE_TIMEOUT, 0L);  // perhaps at another address, too
  // What TLS has decrypted no socket shows. The head of a range says whether it is the one that was
  // asked for; a text does not, so it has a connection of its own.
  const bool is_hidden = is_tls() || proxy().starts_with("https://");
  is_fresh_ = is_fresh_ || (is_hidden && !request_->is_told_by_head());
  if (is_fresh_) set(CURLOPT_FRESH_CONNECT, 1L);
  set(CURLOPT_OPENSOCKETFUNCTION, &CurlSockets::open);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&sockets_));
  set(CURLOPT_CLOSESOCKETFUNCTION, &CurlSockets::close);
  set(CURLOPT_CLOSESOCKETDATA, static_cast<void*>(&sockets_));
  set(CURLOPT_PREREQFUNCTION, &on_connection);
  set(CURLOPT_PREREQDATA, static_cast<void*>(this));
}

// For standing still, and for a reply as a whole: the longer it may be, the later.
void CurlExchange::set_deadline() {
  const HttpRequest& request = *request_;
  const HttpSettings& settings = *request.settings;
  const int64_t connect_ms = settings.connect_timeout.count();
  const int64_t stall_ms = std::max(settings.stall_timeout, request.patience).count();
  const int64_t reply = request.expected
                            ? request.expected->length
                            : std::min(static_cast<int64_t>(request.most_text_bytes), kLongText);
  const int64_t bytes = reply + std::ssize(request.payload);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms));
  set(CURLOPT_LOW_SPEED_LIMIT, kLeastBytesPerSecond);
  set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(std::max<int64_t>(1, stall_ms / 1000)));
  set(CURLOPT_TIMEOUT_MS,
      static_cast<long>(connect_ms + stall_ms + bytes * 1000 / HttpSettings::kLeastBytesPerSecond));
}

int CurlExchange::on_connection(void* self, char* remote, char*, int remote_port, int local_port) {
  auto& exchange = *static_cast<CurlExchange*>(self);
  const bool is_unclean = exchange.sockets_.is_unclean(remote, remote_port, local_port);
  exchange.is_unclean_ = is_unclean && !exchange.is_fresh_;
  return exchange.is_unclean_ ? 1 : 0;  // CURL_PREREQFUNC_ABORT closes it
}

bool CurlExchange::must_begin_again(CURLcode result) {
  if (result != CURLE_ABORTED_BY_CALLBACK || !std::exchange(is_unclean_, false)) return false;
  curl_easy_setopt(easy_.get(), CURLOPT_FRESH_CONNECT, 1L);
  return is_fresh_ = true;
}

// No exception may pass through libcurl. Where memory runs out, the transfer fails.
size_t CurlExchange::on_header(char* data, size_t size, size_t count, void* self) noexcept {
  try {
    return static_cast<CurlExchange*>(self)->add_line({data, size * count});
  } catch (...) {
    return 0;
  }
}

bool CurlExchange::is_tls() const { return request_->url.starts_with("https://"); }

const std::string& CurlExchange::proxy() const { return request_->settings->proxies.of(is_tls()); }

bool CurlExchange::may_be_used_again() const {
  if (is_tls() || proxy().starts_with("https://")) {
    return request_->is_told_by_head() && request_->verdict == RangeVerdict::right;
  }
  const int status = request_->head.status();
  return (status >= 200 && status <= 299) || status == 404 || status == 412;
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
  if (!may_be_used_again()) set(CURLOPT_FORBID_REUSE, 1L);
  return is_well ? line.size() : 0;
}

size_t CurlExchange::on_body(char* data, size_t size, size_t count, void* self) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(self);
  const size_t bytes = size * count;
  if (exchange.request_ == nullptr || !exchange.has_head_) return 0;
  try {
    const bool is_well = exchange.request_->add_body({reinterpret_cast<std::byte*>(data), bytes});
    return is_well ? bytes : bytes + 1;
  } catch (...) {
    return bytes + 1;
  }
}

HttpRequest& CurlExchange::end(CURLcode result) noexcept {
  HttpRequest& request = *request_;
  if (request.outcome == HttpOutcome::refused) return *std::exchange(request_, nullptr);
  try {
    if (result == CURLE_OK && has_head_) {
      request.finish_body();
    } else if (result == CURLE_OK) {
      request.outcome = HttpOutcome::broken;
      request.problem = "the reply ended within its headers";
    } else {
      request.outcome = outcome_of(result, easy_.get());
      request.problem = request.settings->proxies.without_secrets(
          error_[0] != '\0' ? error_.data() : curl_easy_strerror(result));
    }
  } catch (...) {
    return end_unbegun("out of memory");
  }
  return *std::exchange(request_, nullptr);
}

HttpRequest& CurlExchange::end_unbegun(std::string_view problem) noexcept {
  HttpRequest& request = *std::exchange(request_, nullptr);
  request.outcome = HttpOutcome::broken;
  try {
    request.problem = problem;
  } catch (...) {  // without a text, then
    request.problem.clear();
  }
  return request;
}

HttpRequest& CurlExchange::end_cancelled() noexcept {
  HttpRequest& request = *std::exchange(request_, nullptr);
  request.outcome = HttpOutcome::cancelled;
  return request;
}

}  // namespace s3io
