// HTTP/1.1 by libcurl: few threads, each with connections of its own (CurlReactor).
//
// Connections are used again only where their last reply was whole, its status is 2xx, 404 or 412,
// and nothing came after it. No signals, no redirects, no decompression; proxies and their
// exceptions come from the usual variables of the environment.
#pragma once

#include <memory>

#include "http/transport.h"

namespace s3io {

struct CurlOptions {
  int connections = 64;  // most at once; further requests wait
  // They share the connections. A second one is for TLS, which takes a processor sooner. A request
  // goes to the one that has the most connections free.
  int threads = 1;

  bool operator==(const CurlOptions&) const = default;
};

// A thread starts with its first request, and ends with the transport.
std::unique_ptr<Transport> make_curl_transport(const CurlOptions& options = {});

// One for all of a process that want the same, as long as somebody has it. A forked child makes its
// own.
std::shared_ptr<Transport> shared_curl_transport(const CurlOptions& options = {});

// Ends their threads, for good: before a process ends, since OpenSSL is taken down then. Requests
// come back as cancelled from then on.
void stop_shared_curl_transports();

}  // namespace s3io
