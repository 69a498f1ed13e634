#include "http/curl_sockets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <new>
#include <string_view>
#include <utility>

namespace s3io {
namespace {

// One end of a connection.
struct End {
  std::array<char, INET6_ADDRSTRLEN> host{};
  int port = 0;
};

End end_of(int fd, decltype(::getpeername)& name) {
  End end;
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (name(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return end;
  const bool is_v4 = address.ss_family == AF_INET;
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  end.port = ntohs(is_v4 ? v4.sin_port : v6.sin6_port);
  const void* const bits = is_v4 ? static_cast<const void*>(&v4.sin_addr) : &v6.sin6_addr;
  ::inet_ntop(address.ss_family, bits, end.host.data(), static_cast<socklen_t>(end.host.size()));
  return end;
}

}  // namespace

curl_socket_t CurlSockets::open(void* self, curlsocktype /*purpose*/, curl_sockaddr* address) {
  const int fd = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (fd < 0) return CURL_SOCKET_BAD;
  try {
    static_cast<CurlSockets*>(self)->sockets_.push_back({.fd = fd});
  } catch (const std::bad_alloc&) {
    ::close(fd);
    return CURL_SOCKET_BAD;
  }
  return fd;
}

int CurlSockets::close(void* self, curl_socket_t socket) {
  std::erase_if(static_cast<CurlSockets*>(self)->sockets_,
                [&](const Socket& one) { return one.fd == socket; });
  return ::close(socket);
}

bool CurlSockets::is_unclean(const char* remote, int remote_port, int local_port) {
  for (Socket& socket : sockets_) {
    if (end_of(socket.fd, ::getsockname).port != local_port) continue;
    const End other = end_of(socket.fd, ::getpeername);
    if (other.port != remote_port || std::string_view(other.host.data()) != remote) continue;
    if (!std::exchange(socket.was_in_use, true)) return false;
    char byte = 0;
    return ::recv(socket.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
  }
  return true;
}

}  // namespace s3io
