// Which proxy stands before a server, by the usual variables of the environment.
#pragma once

#include <string>
#include <string_view>

namespace s3io {

struct Proxies {
  std::string plain = {};       // the URL for http://; empty: none
  std::string tls = {};         // the same for https://
  std::string exceptions = {};  // hosts that are reached without, as libcurl's CURLOPT_NOPROXY

  const std::string& of(bool is_tls) const { return is_tls ? tls : plain; }
  // The text with "..." for the users and passwords of their URLs.
  std::string without_secrets(std::string_view text) const;
};

// http_proxy, https_proxy, all_proxy and no_proxy, in capitals, too, but for HTTP_PROXY, which a
// client of a web server may have set (CVE-2016-5385). To be called where nobody sets them.
Proxies proxies_of_environment();

}  // namespace s3io
