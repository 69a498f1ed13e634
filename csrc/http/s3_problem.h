// What is wrong with a reply, in the words of S3; pure functions of a call whose request is back.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "http/s3_call.h"
#include "http/s3_xml.h"

namespace s3io {

struct S3Problem {
  ErrorKind kind = ErrorKind::read;
  bool may_pass = false;  // by itself
  std::string text;       // a part of a sentence, without secrets
  S3Error error = {};     // of a reply
};

// Whether a code or a status is among these.
bool is_one_of(const auto& values, const auto& value) {
  return std::ranges::find(values, value) != values.end();
}

// Of credentials that were right for a while.
inline constexpr std::array<std::string_view, 3> kExpiredCodes{"ExpiredToken", "InvalidToken",
                                                               "TokenRefreshRequired"};

// Of credentials that the server does not know: others may have been put in their place.
inline constexpr std::array<std::string_view, 2> kWrongKeyCodes{"InvalidAccessKeyId",
                                                                "SignatureDoesNotMatch"};

// What to do about an object that is stored with Content-Encoding.
inline constexpr std::string_view kEncodedAdvice =
    "; objects that are stored with Content-Encoding cannot be read in ranges: upload it without, "
    "or copy it onto itself with other metadata";

// ' CODE, "message"': what an error says of itself, without secrets; a part of a sentence.
std::string text_of(const S3Error& error, const Credentials& credentials);

// None: it is well.
std::optional<S3Problem> problem_of(const S3Call& call);
// Of an attempt with this problem.
Doubt doubt_of(const HttpRequest& http, const S3Problem& problem);

// What the caller is told: which object and bytes, what is wrong, how often it was tried, the
// request's id, and what to do. `more` stands instead of the usual advice.
Error error_of(const S3Call& call, const S3Problem& problem, std::string_view more);

}  // namespace s3io
