// A server on the loopback that sends exactly the bytes that a test gives it.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <atomic>
#include <charconv>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "leak_check.h"
#include "testing.h"

namespace s3io::testing {

class RawServer {
 public:
  enum class Then : uint8_t {
    keep,   // the connection, for the next request
    close,  // it
    stall,  // until the client closes it
  };
  struct Reply {
    std::string bytes;
    Then then = Then::keep;
    std::string later = {};  // sent by itself, after `send_later`
  };
  // By the number of the connection, and of the request on all of them; with the request's head,
  // and the body behind it.
  using Answer = std::function<Reply(int connection, int request, const std::string& head)>;

  explicit RawServer(Answer answer) : answer_(std::move(answer)) {
    listening_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(listening_.get(), any, size) == 0);
    REQUIRE(::listen(listening_.get(), 64) == 0);
    REQUIRE(::getsockname(listening_.get(), any, &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { accept_all(); });
  }
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;
  ~RawServer() {
    ::shutdown(listening_.get(), SHUT_RDWR);
    thread_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& one : threads_) one.join();
  }

  std::string url(const std::string& path = "/bucket/key") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }
  int connections() const { return connections_; }
  int requests() const { return requests_; }
  // Sends `later` of the last reply, and waits until the client's kernel has it.
  void send_later() {
    const std::lock_guard lock(mutex_);
    send_all(later_fd_, later_);
    CHECK(holds_soon([&] {
      int unsent = -1;
      return ::ioctl(later_fd_, SIOCOUTQ, &unsent) == 0 && unsent == 0;
    }));
  }

 private:
  void accept_all() {
    while (true) {
      const int fd = ::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const std::lock_guard lock(mutex_);
      open_.push_back(fd);
      threads_.emplace_back([this, fd, number = connections_++] { serve(fd, number); });
    }
  }

  void serve(int fd, int connection) {
    std::string head;
    while (read_head(fd, head)) {
      const Reply reply = answer_(connection, requests_++, head);
      {
        const std::lock_guard lock(mutex_);
        later_ = reply.later;
        later_fd_ = fd;
      }
      send_all(fd, reply.bytes);
      if (reply.then == Then::close) break;
      char byte = 0;
      if (reply.then == Then::stall && ::recv(fd, &byte, 1, 0) <= 0) break;
    }
    const std::lock_guard lock(mutex_);
    std::erase(open_, fd);
    ::close(fd);
  }

  static bool read_head(int fd, std::string& head) {
    head.clear();
    while (!head.ends_with("\r\n\r\n")) {
      char byte = 0;
      if (::recv(fd, &byte, 1, 0) != 1) return false;
      head += byte;
    }
    constexpr std::string_view kLength = "Content-Length: ";
    const size_t at = head.find(kLength);
    size_t missing = 0;
    if (at != std::string::npos) {
      std::from_chars(head.data() + at + kLength.size(), head.data() + head.size(), missing);
    }
    std::string body(missing, '\0');
    const bool is_whole = missing == 0 || ::recv(fd, body.data(), missing, MSG_WAITALL) ==
                                              static_cast<ssize_t>(missing);
    head += body;
    return is_whole;
  }

  static void send_all(int fd, const std::string& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t sent = ::send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) return;
      at += static_cast<size_t>(sent);
    }
  }

  const Answer answer_;
  UniqueFd listening_;
  int port_ = 0;
  std::atomic<int> connections_{0};
  std::atomic<int> requests_{0};
  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::string later_;
  int later_fd_ = -1;
};

}  // namespace s3io::testing
