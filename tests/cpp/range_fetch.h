// One request for a range of an object that a RawServer has, and whether it was answered well.
#pragma once

#include "http/curl_transport.h"
#include "http/etag.h"
#include "leak_check.h"
#include "raw_server.h"

namespace s3io::testing {

using Reply = RawServer::Reply;
using Then = RawServer::Then;

// The loopback is reached without a proxy, whatever the machine has.
[[maybe_unused]] inline const int no_proxy = ::setenv("no_proxy", "127.0.0.1", 1);
inline constexpr int64_t kObjectBytes = 3'000'000;
inline const Bytes kObject = random_bytes(kObjectBytes, 19);

inline std::string text_of(int64_t offset, int64_t length) {
  return {reinterpret_cast<const char*>(kObject.data()) + offset, static_cast<size_t>(length)};
}

inline std::string head_of(int64_t offset, int64_t length) {
  return "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Length: " +
         std::to_string(length) + "\r\nContent-Range: bytes " + std::to_string(offset) + "-" +
         std::to_string(offset + length - 1) + "/" + std::to_string(kObjectBytes) + "\r\n\r\n";
}

inline std::string good(int64_t offset, int64_t length) {
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

}  // namespace s3io::testing
