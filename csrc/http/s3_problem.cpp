#include "http/s3_problem.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/printable.h"
#include "http/credentials.h"

namespace s3io {
namespace {

constexpr std::array<int, 6> kPassingStatuses{408, 429, 500, 502, 503, 504};
constexpr std::array<std::string_view, 8> kPassingCodes{
    "RequestTimeout", "InternalError", "SlowDown",  "ServiceUnavailable",
    "Throttling",     "Busy",          "BadDigest", "IncompleteBody"};

std::string name_of(const S3Call& call) {
  std::string name = message("s3://", call.object.bucket, "/", call.object.key);
  if (call.http.expected && !call.http.expected->is_look()) {
    const ExpectedRange& range = *call.http.expected;
    append(name, message(", bytes ", range.offset, "-", range.offset + range.length - 1));
  }
  return name;
}

// Whether the credentials may be what is too old, or wrong: of HEAD the reply has no text.
bool may_have_expired(const S3Call& call, const S3Error& error) {
  return error.code.empty() && call.method == "HEAD" && call.http.head.status() == 400 &&
         !call.credentials->session_token.empty();
}

// What to do about it, for who cannot read the protocol.
std::string_view advice(const S3Call& call, const S3Problem& problem) {
  const int status = call.http.head.status();
  if (problem.kind == ErrorKind::access && may_have_expired(call, problem.error)) {
    return "; the server does not say why: the session token may have expired (get new "
           "credentials, as by `aws sso login`, and set AWS_SESSION_TOKEN, or session_token= of "
           "S3Config, with the keys that belong to it), the object may be encrypted with a key of "
           "its own (SSE-C), which cannot be read, or the bucket may be of another region "
           "(region=)";
  }
  if (problem.kind == ErrorKind::access && is_one_of(kExpiredCodes, problem.error.code)) {
    return "; the session token has expired, or is none, and there is no newer one: get new "
           "credentials, as by `aws sso login`, and set AWS_SESSION_TOKEN, or session_token= of "
           "S3Config, with the keys that belong to it";
  }
  if (status >= 300 && status <= 399) return "; endpoint= and region= must be the bucket's own";
  const bool is_read = call.method == "GET" || call.method == "HEAD";
  switch (problem.kind) {
    case ErrorKind::access:
      if (!is_read) {
        return "; check the credentials, and that their policy allows s3:PutObject, "
               "s3:AbortMultipartUpload and s3:DeleteObject";
      }
      if (call.query.ends_with("uploads=")) {
        return "; check the credentials, and that their policy allows "
               "s3:ListBucketMultipartUploads";
      }
      return "; check the credentials, and that their policy allows s3:GetObject and s3:ListBucket";
    case ErrorKind::object_changed:
      if (!is_read) return "";
      return "; make a new data set, or put the object back that it was made of";
    default:
      return "";
  }
}

S3Problem problem_of_reply(const S3Call& call) {
  const HttpRequest& http = call.http;
  const int status = http.head.status();
  S3Problem problem;
  problem.error = parse_s3_error(http.text);
  const S3Error& error = problem.error;
  problem.may_pass = is_one_of(kPassingStatuses, status) || is_one_of(kPassingCodes, error.code);
  problem.text = message("the server answers ", status, text_of(error, *call.credentials));
  if (problem.may_pass) return problem;
  if (status == 404) {
    const bool was_there = call.http.expected && error.code != "NoSuchBucket";
    problem.kind = was_there ? ErrorKind::object_changed : ErrorKind::not_found;
  } else if (status == 401 || status == 403 || is_one_of(kExpiredCodes, error.code) ||
             may_have_expired(call, error)) {
    problem.kind = ErrorKind::access;
  } else if (status == 412 || status == 409) {
    problem.kind = ErrorKind::object_changed;
  } else if (status == 400 || (status >= 300 && status <= 399)) {
    problem.kind = ErrorKind::config;
  }
  return problem;
}

}  // namespace

std::string text_of(const S3Error& error, const Credentials& credentials) {
  std::string text;
  if (!error.code.empty()) text = message(" ", without_secrets(error.code, credentials));
  if (!error.message.empty()) {
    append(text, message(", ", quoted(without_secrets(error.message, credentials))));
  }
  return text;
}

std::optional<S3Problem> problem_of(const S3Call& call) {
  const HttpRequest& http = call.http;
  const std::string why = without_secrets(http.problem, *call.credentials);
  if (http.verdict == RangeVerdict::changed) {
    return S3Problem{ErrorKind::object_changed, false, message("it has changed: ", why)};
  }
  switch (http.outcome) {
    case HttpOutcome::replied:
      break;
    case HttpOutcome::refused:
      return S3Problem{ErrorKind::read, true, message("the reply cannot be used: ", why)};
    case HttpOutcome::broken:
      return S3Problem{ErrorKind::read, true, message("the connection broke: ", why)};
    case HttpOutcome::unreached:
    case HttpOutcome::misnamed:
      return S3Problem{ErrorKind::read, true,
                       message("the server ", call.target.host, " was not reached: ", why)};
    case HttpOutcome::untrusted:
      return S3Problem{ErrorKind::config, false,
                       message("the certificate of ", call.target.host, " is not trusted: ", why,
                               "; ca_file= names the one that vouches for it")};
    case HttpOutcome::late:
      return S3Problem{ErrorKind::read_timeout, true, message("the reply was too slow: ", why)};
    case HttpOutcome::cancelled:
      return S3Problem{ErrorKind::read, false, "the request was given up"};
  }
  const int status = http.head.status();
  const bool is_success =
      http.expected ? http.verdict == RangeVerdict::right : status >= 200 && status <= 299;
  if (!is_success) return problem_of_reply(call);
  if (http.expected || !http.head.has_content_encoding()) return std::nullopt;
  if (call.method == "HEAD") {
    return S3Problem{ErrorKind::data, false, message("its bytes are encoded", kEncodedAdvice)};
  }
  return S3Problem{ErrorKind::read, true, "the text of the reply is encoded"};
}

Doubt doubt_of(const HttpRequest& http, const S3Problem& problem) {
  switch (http.outcome) {
    case HttpOutcome::unreached:
    case HttpOutcome::misnamed:
    case HttpOutcome::untrusted:
      return Doubt::none;
    case HttpOutcome::replied:
      break;
    default:
      return Doubt::open;
  }
  const int status = http.head.status();
  if (status < 300) return Doubt::ended;
  if (status < 500) return Doubt::none;
  // What has no code of S3's is of a gateway, which gives up before the server does.
  const std::string& code = problem.error.code;
  const bool is_gateways = code.empty() || status == 502 || status == 504;
  // SlowDown is said instead of doing it. MinIO says SlowDownWrite where too few of its disks have
  // answered, others may yet.
  if (status == 503 && code == "SlowDown") return Doubt::none;
  return is_gateways || status == 503 ? Doubt::open : Doubt::ended;
}

Error error_of(const S3Call& call, const S3Problem& problem, std::string_view more) {
  std::string text = message(name_of(call), ": ", problem.text);
  if (call.attempts > 1) {
    const double seconds = static_cast<double>(nanoseconds_since(call.begun)) * 1e-9;
    append(text,
           message(" (attempt ", call.attempts, ", after ", std::round(seconds * 10) / 10, " s)"));
  }
  const std::string& id =
      call.http.head.request_id().empty() ? problem.error.request_id : call.http.head.request_id();
  if (!id.empty()) append(text, message(", request id ", quoted(id)));
  append(text, more.empty() ? advice(call, problem) : more);
  return Error(problem.kind, without_secrets(text, *call.credentials));
}

}  // namespace s3io
