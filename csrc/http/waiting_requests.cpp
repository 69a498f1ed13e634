#include "http/waiting_requests.h"

#include <algorithm>

namespace s3io {
namespace {

constexpr size_t kMostKept = 64;

// Scheme, host and port.
std::string_view server_name(std::string_view url) {
  const size_t scheme = url.find("://");
  const size_t begin = scheme == std::string_view::npos ? 0 : scheme + 3;
  return url.substr(0, url.find('/', begin));
}

}  // namespace

WaitingRequests::Server& WaitingRequests::server_of(const HttpRequest& request) {
  const std::string_view name = server_name(request.url);
  const auto known = std::ranges::find(servers_, name, &Server::name);
  if (known != servers_.end()) return *known;
  if (servers_.size() >= kMostKept) {
    std::erase_if(servers_,
                  [](const Server& one) { return one.in_hand == 0 && one.first == nullptr; });
  }
  servers_.push_back({.name = std::string(name)});
  return servers_.back();
}

void WaitingRequests::push(HttpRequest& request) { server_of(request).push(request); }

HttpRequest* WaitingRequests::take() {
  Server* least = nullptr;
  for (Server& server : servers_) {
    if (server.first == nullptr) continue;
    if (least == nullptr || server.in_hand < least->in_hand) least = &server;
  }
  if (least == nullptr) return nullptr;
  HttpRequest& request = *least->first;
  least->first = request.next;
  least->in_hand += 1;
  return &request;
}

void WaitingRequests::end(const HttpRequest& request) noexcept {
  const auto known = std::ranges::find(servers_, server_name(request.url), &Server::name);
  if (known != servers_.end()) known->in_hand -= 1;
}

}  // namespace s3io
