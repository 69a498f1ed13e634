// The sockets of all handles of a reactor, by libcurl's hooks. The reactor's thread alone.
#pragma once

#include <curl/curl.h>

#include <vector>

namespace s3io {

// What libcurl has open. It says of a connection between which ports it goes, and to whom.
class CurlSockets {
 public:
  static curl_socket_t open(void* self, curlsocktype purpose, curl_sockaddr* address);
  static int close(void* self, curl_socket_t socket);

  // Whether something came on a connection that was in use before, though nobody asked: a surplus
  // of the last reply, or its end. Nothing is asked on it then. From now on it was in use.
  // One that is not found is unclean, too.
  bool is_unclean(const char* remote, int remote_port, int local_port);

 private:
  struct Socket {
    curl_socket_t fd;
    bool was_in_use = false;
  };
  std::vector<Socket> sockets_;
};

}  // namespace s3io
