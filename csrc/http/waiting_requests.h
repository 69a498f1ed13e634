// Requests that wait for a connection. The next one is of the server that has the fewest in hand,
// and of its own the oldest: a server that does not answer does not have all connections.
// One thread at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http/transport.h"

namespace s3io {

class WaitingRequests {
 public:
  void push(HttpRequest& request);
  // It is in hand from now on, until `end`; null where none waits.
  HttpRequest* take();
  void end(const HttpRequest& request) noexcept;
  // Takes out all for which `is_unwanted`, linked by `next`.
  template <typename IsUnwanted>
  HttpRequest* remove_if(const IsUnwanted& is_unwanted);

 private:
  struct Server {
    std::string name;
    int in_hand = 0;
    HttpRequest* first = nullptr;
    HttpRequest* last = nullptr;

    void push(HttpRequest& request) {
      request.next = nullptr;
      (first == nullptr ? first : last->next) = &request;
      last = &request;
    }
  };

  Server& server_of(const HttpRequest& request);

  std::vector<Server> servers_;  // few; those with nothing are kept, up to a number
};

template <typename IsUnwanted>
HttpRequest* WaitingRequests::remove_if(const IsUnwanted& is_unwanted) {
  HttpRequest* removed = nullptr;
  for (Server& server : servers_) {
    HttpRequest* next = server.first;
    server.first = server.last = nullptr;
    while (next != nullptr) {
      HttpRequest& request = *next;
      next = request.next;
      if (!is_unwanted(request)) {
        server.push(request);
      } else {
        request.next = removed;
        removed = &request;
      }
    }
  }
  return removed;
}

}  // namespace s3io
