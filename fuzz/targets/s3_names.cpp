// Paths of objects, endpoints, and what is signed of a request: whatever the text, it is refused,
// or what comes of it is one line of printable characters that leads nowhere else.
#include <algorithm>

#include "base/error.h"
#include "engine/input.h"
#include "http/sigv4.h"
#include "http/url.h"

namespace s3io::fuzz {
namespace {

bool is_one_word(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char one) { return one > 0x20 && one < 0x7f; });
}

// Default where it is refused, which is then a short line without what may be a password.
template <typename Parse>
auto parsed(const std::string& text, Parse parse) -> decltype(parse(text)) {
  try {
    return parse(text);
  } catch (const Error& error) {
    const std::string shown = error.what();
    require(error.kind() == ErrorKind::config && shown.size() < 1000);
    require(shown.find('\n') == std::string::npos && shown.find('\0') == std::string::npos);
    return {};
  }
}

void check_target(Input& input, const Endpoint& endpoint, const S3Path& path) {
  const auto addressing = static_cast<Addressing>(input.between(0, 2));
  S3Target target;
  try {
    address(endpoint, input.flag(), addressing, path, target);
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::config);
    return;
  }
  require(is_one_word(target.url) && target.url.ends_with(target.host + target.path));
  require(target.host.ends_with(endpoint.authority()));
  require(target.path.find_first_of("?#") == std::string::npos);

  const HttpHeader headers[] = {{"host", target.host}, {"x-amz-meta", input.text()}};
  const RequestToSign request{"GET", target.path, "", headers, kUnsignedPayload};
  std::string signature;
  Signer().sign(request, {"id", input.text(), ""}, "region", amz_date(input.number()), signature);
  require(signature.starts_with("AWS4-HMAC-SHA256 Credential=id/") && signature.size() < 300);
}

void read(Input& input) {
  const Endpoint endpoint = parsed(input.text(), parse_endpoint);
  const Endpoint region = parsed(input.text(), aws_endpoint);
  const S3Path path = parsed(input.text(), parse_s3_path);
  if (path.bucket.empty()) return;
  require(path == parse_s3_path("s3://" + path.bucket + "/" + path.key));
  if (!endpoint.host.empty()) check_target(input, endpoint, path);
  if (!region.host.empty()) check_target(input, region, path);
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
