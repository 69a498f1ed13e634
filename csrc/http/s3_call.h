// One operation of S3 with all its attempts, and what the client keeps of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "http/sigv4.h"
#include "http/transport.h"
#include "http/url.h"

namespace s3io {

// Where buckets of one region are asked for.
struct S3Place {
  std::string region;
  Endpoint endpoint;
};

// What the server may have made of an attempt that failed. It matters for writes.
enum class Doubt : uint8_t {
  none,   // nothing: it refused, or was not reached
  ended,  // it says that it failed: a look tells how far it came
  open,   // no word of its own: it may have done it, and may do it yet
};

// One operation. Its memory is used again for the next one.
struct S3Call {
  // In.
  std::string_view method = "GET";
  S3Path object;
  std::string query;                // as RequestToSign says
  std::vector<HttpHeader> headers;  // beside those of the signature, in lower case
  bool may_repeat = true;           // else only an attempt that reached nobody is repeated
  HttpRequest http;                 // in: payload, expected, data, most_text_bytes, inbox, owner

  // Out.
  std::optional<Error> error;
  Doubt doubt = Doubt::none;       // the worst of all attempts that failed
  Clock::time_point not_before{};  // of the next attempt
  int attempts = 0;
  int malformed = 0;  // of these, replies that were none

  // The client's own.
  Clock::time_point begun{};
  std::optional<Clock::time_point> failed;  // for the first time
  bool has_renewed = false, has_set_clock = false, has_moved = false;
  int64_t clock_offset_s = 0;  // the server's time is so much later
  std::shared_ptr<const Credentials> credentials;
  S3Target target;
  const S3Place* place = nullptr;  // the client's
};

}  // namespace s3io
