// The seam between the protocol and the network: one HTTP request after the other, many in flight,
// replies in any order. CurlTransport is one; tests have one that follows a script.
//
// A transport tries once, and reports what came back. To try again, to sign, and to understand
// errors is the business of S3Client.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "http/proxies.h"
#include "http/response_head.h"
#include "http/sigv4.h"

namespace s3io {

class HttpInbox;

enum class HttpOutcome : uint8_t {
  replied,    // head and body are whole; the status may be any
  refused,    // the head, or a byte too many: nothing more was read, the connection is closed
  broken,     // it ended before the reply was whole: reset, cut off, garbage
  unreached,  // no connection: refused, or nobody answers
  misnamed,   // the same: no host has this name, or what listens there does not speak TLS
  untrusted,  // the certificate is none that ca_file, or the system, vouches for
  late,       // it stood still for `stall_timeout`, or took too long for its length
  cancelled,
};

// What many requests share; outlives them.
struct HttpSettings {
  std::string ca_file;  // PEM, of those alone that are trusted; empty: the system's
  std::string user_agent = "torch_s3io";
  Proxies proxies = proxies_of_environment();  // as it is in the thread that makes these settings
  milliseconds connect_timeout{10'000};
  // A reply, or a body that is sent, which makes less than a KiB a second for so long is late.
  milliseconds stall_timeout{20'000};
  // So is one that has taken both times and its length at this rate. (Of a text, a MiB at most.)
  static constexpr int64_t kLeastBytesPerSecond = int64_t{16} << 10;
  // Servers close connections that are idle, S3 after about 5 s: an older one is not used again.
  int max_idle_s = 3;  // at least 1; it may become a second more
};

// One request and its reply. The caller owns it, and the memory that it points to, until it is in
// its inbox.
struct HttpRequest {
  std::string_view method = "GET";
  std::string url;
  std::vector<HttpHeader> headers;
  std::span<const std::byte> payload;
  const HttpSettings* settings = nullptr;
  bool is_fresh = false;     // on a new connection
  milliseconds patience{0};  // it may stand still for so long, if that is more than stall_timeout
  HttpInbox* inbox = nullptr;
  void* owner = nullptr;  // for the caller

  // Where the body goes. With `expected` a reply of verdict `right` goes to `data`, which has room
  // for expected->length bytes; one that is `changed` or `malformed` is refused before a byte of it
  // is stored. Every other body goes to `text`, up to `most_text_bytes`, beyond which it is
  // refused. So is a part of an object (206) where none is expected: it is another request's.
  std::optional<ExpectedRange> expected;
  std::byte* data = nullptr;
  // Whether the head of the reply says that it is this request's, and no other one's.
  bool is_told_by_head() const { return expected && !expected->is_look(); }
  size_t most_text_bytes = size_t{64} << 10;

  // Out.
  HttpOutcome outcome = HttpOutcome::replied;
  RangeVerdict verdict = RangeVerdict::other;  // of `expected`
  ResponseHead head;
  int64_t body_bytes = 0;  // received: of `data`, or of `text`
  std::string text;
  std::string problem;  // what went wrong, a part of a sentence; of a reply, why it is not right

  HttpRequest* next = nullptr;    // the transport's, then the inbox's
  bool is_cancel_wanted = false;  // the transport's
  int reactor = 0;                // the same

  void clear_reply();
  // Judges the head that is there: whether its body may come. Else outcome and problem say why not.
  bool accept_head();
  // Stores a part of the body where it belongs. False where it is more than was said: the same.
  bool add_body(std::span<const std::byte> part);
  // After the last byte: a body that is too short is `broken`.
  void finish_body();
};

// Where the requests of one caller come back. One thread takes them out.
class HttpInbox {
 public:
  HttpInbox();  // throws Error(out_of_memory) where there is no descriptor
  HttpInbox(const HttpInbox&) = delete;
  HttpInbox& operator=(const HttpInbox&) = delete;

  // Any thread; allocates nothing.
  void put(HttpRequest& request);
  // The requests that are back, linked by `next`; null where there are none.
  HttpRequest* take();
  // Until one is back, or `timeout` is over.
  void wait(milliseconds timeout) const;
  // poll(2) finds it readable as long as requests are in it.
  int fd() const { return ready_.get(); }

  // Bytes of bodies so far: tells a slow server from a dead one.
  std::atomic<int64_t> bytes{0};

 private:
  UniqueFd ready_;
  std::mutex mutex_;  // guards what follows
  HttpRequest* first_ = nullptr;
  HttpRequest* last_ = nullptr;
};

// Any thread. It belongs to the process that made it: what it has in a forked child is neither used
// nor closed, and `submit` throws Error(config) there.
class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  // Begins it, or has it wait for a connection. It comes back to request.inbox, whatever happens.
  virtual void submit(HttpRequest& request) = 0;
  // Has it come back at once, unless it is back already. Its memory is not written to from then on.
  virtual void cancel(HttpRequest& request) noexcept = 0;
};

}  // namespace s3io
