#include "http/proxies.h"

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "http/credentials.h"

namespace s3io {
namespace {

std::string first_of(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* const value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return "";
}

// user:password of scheme://user:password@host.
Credentials user_of(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme != std::string_view::npos) url.remove_prefix(scheme + 3);
  const size_t end = url.substr(0, url.find('/')).rfind('@');
  if (end == std::string_view::npos) return {};
  const std::string_view user = url.substr(0, end);
  const size_t colon = std::min(user.find(':'), user.size());
  Credentials found;
  found.access_key = user.substr(0, colon);
  found.secret_key = user.substr(std::min(colon + 1, user.size()));
  return found;
}

}  // namespace

std::string Proxies::without_secrets(std::string_view text) const {
  return s3io::without_secrets(s3io::without_secrets(text, user_of(plain)), user_of(tls));
}

Proxies proxies_of_environment() {
  return {.plain = first_of({"http_proxy", "all_proxy", "ALL_PROXY"}),
          .tls = first_of({"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}),
          .exceptions = first_of({"no_proxy", "NO_PROXY"})};
}

}  // namespace s3io
