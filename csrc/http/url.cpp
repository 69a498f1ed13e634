#include "http/url.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/printable.h"

namespace s3io {
namespace {

constexpr std::string_view kScheme = "s3://";

// As the locale has it nowhere.
bool is_alphanumeric(char one) {
  return (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || (one >= '0' && one <= '9');
}

bool is_bucket(std::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && is_alphanumeric(name.front()) &&
         is_alphanumeric(name.back()) && std::ranges::all_of(name, [](char one) {
           return is_alphanumeric(one) || one == '-' || one == '.' || one == '_';
         });
}

// Whether it can be a part of a host's name: by itself, for which a certificate is valid, or with
// dots in it.
bool may_be_in_host(std::string_view bucket, bool may_have_dots) {
  const bool has_empty_label = bucket.find("..") != std::string_view::npos;
  return !has_empty_label && std::ranges::all_of(bucket, [&](char one) {
    return (one >= 'a' && one <= 'z') || (one >= '0' && one <= '9') || one == '-' ||
           (one == '.' && may_have_dots);
  });
}

[[noreturn]] void refuse_endpoint(std::string_view text, std::string_view reason) {
  const bool may_hold_secrets = text.find('@') != std::string_view::npos;
  throw Error(ErrorKind::config,
              message("endpoint=", may_hold_secrets ? "..." : quoted(text), ": ", reason,
                      "; give one such as \"https://storage.example.com\" or "
                      "\"http://127.0.0.1:9000\""));
}

int parse_port(std::string_view whole, std::string_view text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port < 1 || port > 65535) {
    refuse_endpoint(whole, "the port is no number from 1 to 65535");
  }
  return port;
}

bool is_host(std::string_view host) {
  if (host.starts_with('[')) {
    return host.size() > 2 && host.ends_with(']') &&
           std::ranges::all_of(host.substr(1, host.size() - 2), [](char one) {
             return (is_alphanumeric(one) && (one | 0x20) <= 'f') || one == ':' || one == '.';
           });
  }
  return !host.empty() && host.size() <= 253 && std::ranges::all_of(host, [](char one) {
    return is_alphanumeric(one) || one == '-' || one == '.' || one == '_';
  });
}

// An IP address, before which no bucket's name can stand.
bool is_address(std::string_view host) {
  in_addr address{};
  return host.starts_with('[') || ::inet_pton(AF_INET, std::string(host).c_str(), &address) == 1;
}

}  // namespace

S3Path parse_s3_path(std::string_view path) {
  const auto refuse = [&](std::string_view reason) {
    return Error(ErrorKind::config,
                 message(quoted(path), " is no path of an object: ", reason, "; s3://bucket/key"));
  };
  if (!path.starts_with(kScheme)) throw refuse("it does not begin with s3://");
  const std::string_view rest = path.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  S3Path parsed{std::string(rest.substr(0, slash)),
                std::string(rest.substr(std::min(slash + 1, rest.size())))};
  if (!is_bucket(parsed.bucket)) {
    throw refuse("a bucket's name has 3 to 63 letters, digits, dots, hyphens and underscores");
  }
  if (parsed.key.size() > kMostS3KeyBytes) throw refuse("its key has more than 1024 bytes");
  if (parsed.key.find('\0') != std::string::npos) throw refuse("its key has a NUL");
  return parsed;
}

std::string Endpoint::authority() const {
  return port == 0 || port == (is_tls ? 443 : 80) ? host : message(host, ":", port);
}

Endpoint parse_endpoint(std::string_view text) {
  Endpoint endpoint;
  std::string_view rest = text;
  if (rest.starts_with("http://")) {
    endpoint.is_tls = false;
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.find('@') != std::string_view::npos) {
    refuse_endpoint(text, "it holds user:password, which belong into access_key= and secret_key=");
  }
  if (rest.find_first_of("/?#") != std::string_view::npos) {
    refuse_endpoint(text, "behind the host there is a path, or another scheme before it");
  }
  const size_t colon = rest.rfind(':');
  if (colon != std::string_view::npos && rest.find(']', colon) == std::string_view::npos) {
    endpoint.port = parse_port(text, rest.substr(colon + 1));
    rest = rest.substr(0, colon);
  }
  if (!is_host(rest)) refuse_endpoint(text, "there is no name or address of a host in it");
  endpoint.host = rest;
  return endpoint;
}

bool may_be_region(std::string_view text) {
  return !text.empty() && text.size() <= 32 &&
         std::ranges::all_of(text, [](char one) { return is_alphanumeric(one) || one == '-'; });
}

Endpoint aws_endpoint(std::string_view region) {
  if (!may_be_region(region)) {
    throw Error(ErrorKind::config, message("region=", quoted(region),
                                           " is no region; give one such as \"us-east-1\""));
  }
  const std::string_view end = region.starts_with("cn-") ? ".amazonaws.com.cn" : ".amazonaws.com";
  return {.is_tls = true, .host = message("s3.", region, end)};
}

void address(const Endpoint& endpoint, bool is_aws, Addressing addressing, const S3Path& object,
             S3Target& out) {
  const bool is_virtual =
      addressing == Addressing::virtual_host ||
      (addressing == Addressing::automatic && is_aws && may_be_in_host(object.bucket, false));
  if (is_virtual && is_address(endpoint.host)) {
    throw Error(ErrorKind::config,
                message("addressing=\"virtual\" needs an endpoint with the name of a host, not ",
                        endpoint.host, "; choose addressing=\"path\""));
  }
  if (is_virtual && !may_be_in_host(object.bucket, !endpoint.is_tls)) {
    throw Error(ErrorKind::config,
                message("addressing=\"virtual\" cannot have the bucket ", quoted(object.bucket),
                        " in the name of a host", endpoint.is_tls ? " with a certificate" : "",
                        "; choose addressing=\"path\""));
  }
  out.host = is_virtual ? message(object.bucket, ".", endpoint.authority()) : endpoint.authority();
  out.path = "/";
  if (!is_virtual) {
    append_percent_encoded(out.path, object.bucket, false);
    if (!object.key.empty()) out.path += '/';
  }
  append_percent_encoded(out.path, object.key, true);
  out.url = endpoint.is_tls ? "https://" : "http://";
  out.url += out.host;
  out.url += out.path;
}

void append_percent_encoded(std::string& out, std::string_view text, bool keeps_slashes) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char one : text) {
    const bool is_plain = is_alphanumeric(one) || one == '-' || one == '_' || one == '.' ||
                          one == '~' || (one == '/' && keeps_slashes);
    if (is_plain) {
      out += one;
    } else {
      const auto byte = static_cast<unsigned char>(one);
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
}

}  // namespace s3io
