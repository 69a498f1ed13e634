#include "http/s3_client.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/printable.h"

namespace s3io {
namespace {

constexpr int kMostMalformed = 3;  // replies that are none, before the server is given up
constexpr int64_t kMostSkewSeconds = 300;
constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

constexpr std::array<int, 6> kPassingStatuses{408, 429, 500, 502, 503, 504};
constexpr std::array<std::string_view, 6> kPassingCodes{
    "RequestTimeout", "InternalError", "SlowDown", "ServiceUnavailable", "Throttling", "Busy"};
constexpr std::array<std::string_view, 3> kExpiredCodes{"ExpiredToken", "InvalidToken",
                                                        "TokenRefreshRequired"};
constexpr std::array<std::string_view, 3> kOtherRegionCodes{
    "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"};

bool is_one_of(const auto& values, const auto& value) {
  return std::ranges::find(values, value) != values.end();
}

class FixedCredentials final : public CredentialSource {
 public:
  explicit FixedCredentials(Credentials credentials)
      : credentials_(std::make_shared<const Credentials>(std::move(credentials))) {}

  std::shared_ptr<const Credentials> current() override { return credentials_; }
  std::shared_ptr<const Credentials> renew(const Credentials&) override { return nullptr; }

 private:
  const std::shared_ptr<const Credentials> credentials_;
};

void check(const S3Config& config) {
  const HttpSettings& http = config.http;
  const bool is_well = config.max_attempts >= 1 && config.retry_timeout_s >= 0 &&
                       config.first_backoff.count() >= 0 && config.most_backoff.count() >= 0 &&
                       config.retries_per_s > 0 && http.connect_timeout.count() > 0 &&
                       http.stall_timeout.count() > 0 && http.max_idle_s >= 0;
  if (!is_well) {
    throw Error(ErrorKind::config,
                "max_attempts, retries_per_s and timeouts must be more than 0, and no other time "
                "of S3Config less than 0");
  }
}

// A line break in one would be a header of its own. The text does not repeat it.
void check(const Credentials& credentials) {
  for (const std::string* text :
       {&credentials.access_key, &credentials.secret_key, &credentials.session_token}) {
    if (std::ranges::all_of(*text, [](char one) { return one > 0x20 && one < 0x7f; })) continue;
    throw Error(ErrorKind::config,
                "a key or a token of the credentials has a blank, a line break or a letter beyond "
                "ASCII: it was copied with what stood around it");
  }
}

// The text without what nobody may read.
std::string without_secrets(std::string text, const Credentials& credentials) {
  for (const std::string* secret :
       {&credentials.secret_key, &credentials.session_token, &credentials.access_key}) {
    if (secret->empty()) continue;
    for (size_t at = text.find(*secret); at != std::string::npos; at = text.find(*secret, at)) {
      text.replace(at, secret->size(), "...");
    }
  }
  return text;
}

std::string name_of(const S3Call& call) {
  std::string name = message("s3://", call.object.bucket, "/", call.object.key);
  if (call.http.expected) {
    const ExpectedRange& range = *call.http.expected;
    append(name, message(", bytes ", range.offset, "-", range.offset + range.length - 1));
  }
  return name;
}

// What to do about it, for who cannot read the protocol.
std::string_view advice(ErrorKind kind, int status) {
  if (status >= 300 && status <= 399) return "; endpoint= and region= must be the bucket's own";
  switch (kind) {
    case ErrorKind::access:
      return "; check the credentials, and that their policy allows s3:GetObject and s3:ListBucket";
    case ErrorKind::file_changed:
      return "; make a new data set, or put the object back that it was made of";
    default:
      return "";
  }
}

}  // namespace

std::shared_ptr<CredentialSource> fixed_credentials(Credentials credentials) {
  return std::make_shared<FixedCredentials>(std::move(credentials));
}

struct S3Client::Problem {
  ErrorKind kind = ErrorKind::read;
  bool may_pass = false;  // by itself
  std::string text;       // a part of a sentence
  S3Error error = {};     // of a reply
};

S3Client::S3Client(S3Config config, std::shared_ptr<CredentialSource> credentials,
                   std::shared_ptr<Transport> transport)
    : config_(std::move(config)),
      credentials_(std::move(credentials)),
      transport_(std::move(transport)),
      endpoint_(config_.endpoint.empty() ? aws_endpoint(config_.region)
                                         : parse_endpoint(config_.endpoint)),
      region_(config_.region),
      random_(std::random_device()()) {
  check(config_);
  if (!may_be_region(region_)) static_cast<void>(aws_endpoint(region_));  // says so
}

void S3Client::begin(S3Call& call) {
  call.error.reset();
  call.attempts = 0;
  call.begun = Clock::now();
  call.has_renewed = call.has_set_clock = call.has_moved = false;
  call.http.is_fresh = false;
  call.credentials = credentials_->current();
  check(*call.credentials);
  submit(call);
}

void S3Client::submit(S3Call& call) {
  call.attempts += 1;
  call.http.method = call.method;
  call.http.settings = &config_.http;
  address_and_sign(call);
  transport_->submit(call.http);
}

void S3Client::address_and_sign(S3Call& call) {
  using std::chrono::system_clock;
  const int64_t now = system_clock::to_time_t(system_clock::now());
  const AmzDate date = amz_date(now + clock_offset_s_);
  const std::lock_guard lock(mutex_);
  call.region = region_;
  address(endpoint_, config_.endpoint.empty(), config_.addressing, call.object, call.target);
  call.http.url = call.target.url;
  if (!call.query.empty()) {
    call.http.url += '?';
    call.http.url += call.query;
  }
  set_headers(call, date);
}

// Those that are signed come first, by name.
void S3Client::set_headers(S3Call& call, const AmzDate& date) {
  std::vector<HttpHeader>& headers = call.http.headers;
  size_t count = 0;
  const auto add = [&](std::string_view name, std::string_view value) {
    if (headers.size() <= count) headers.emplace_back();
    headers[count].name = name;
    headers[count].value = value;
    ++count;
  };
  const Credentials& credentials = *call.credentials;
  const bool is_signed = !credentials.access_key.empty();
  add("host", call.target.host);
  std::string payload_hash;
  if (is_signed) {
    const bool is_hashed = !call.http.payload.empty() && !endpoint_.is_tls;
    if (is_hashed) payload_hash = hex(sha256(call.http.payload));
    add("x-amz-content-sha256", is_hashed                   ? std::string_view(payload_hash)
                                : call.http.payload.empty() ? kEmptyHash
                                                            : kUnsignedPayload);
    add("x-amz-date", {date.data(), date.size()});
    if (!credentials.session_token.empty()) add("x-amz-security-token", credentials.session_token);
  }
  if (config_.requester_pays) add("x-amz-request-payer", "requester");
  for (const HttpHeader& header : call.headers) {
    if (header.name.starts_with("x-amz-")) add(header.name, header.value);
  }
  const size_t num_signed = count;
  std::sort(headers.begin(), headers.begin() + static_cast<int64_t>(count),
            [](const HttpHeader& one, const HttpHeader& other) { return one.name < other.name; });
  for (const HttpHeader& header : call.headers) {
    if (!header.name.starts_with("x-amz-")) add(header.name, header.value);
  }
  if (is_signed) {
    add("authorization", "");
    const std::span to_sign(headers.data(), num_signed);
    const auto hash = std::ranges::find(to_sign, "x-amz-content-sha256", &HttpHeader::name);
    signer_.sign({call.method, call.target.path, call.query, to_sign, hash->value}, credentials,
                 region_, date, headers[count - 1].value);
  }
  headers.resize(count);
}

S3Client::Next S3Client::judge(S3Call& call) {
  const std::optional<Problem> problem = problem_of(call);
  if (!problem) return Next::done;
  call.http.is_fresh = true;
  if (mend(call, *problem)) {
    call.not_before = Clock::now();
    return Next::again;
  }
  const HttpOutcome outcome = call.http.outcome;
  if (!problem->may_pass || (!call.may_repeat && outcome != HttpOutcome::unreached)) {
    return fail(call, *problem, "");
  }
  if (outcome == HttpOutcome::refused && call.attempts >= kMostMalformed) {
    return fail(call, *problem, ": the server, or what is between, does not speak S3's protocol");
  }
  if (call.attempts >= config_.max_attempts) {
    return fail(call, *problem, "; raise max_attempts if that may pass");
  }
  if (Clock::now() >= call.begun + std::chrono::duration<double>(config_.retry_timeout_s)) {
    return fail(call, *problem, "; raise retry_timeout_s if that may pass");
  }
  call.not_before = next_attempt(call.attempts);
  return Next::again;
}

// None: it is well.
std::optional<S3Client::Problem> S3Client::problem_of(const S3Call& call) const {
  const HttpRequest& http = call.http;
  const std::string why = without_secrets(http.problem, *call.credentials);
  if (http.verdict == RangeVerdict::changed) {
    return Problem{ErrorKind::file_changed, false, message("it has changed: ", why)};
  }
  switch (http.outcome) {
    case HttpOutcome::replied:
      break;
    case HttpOutcome::refused:
      return Problem{ErrorKind::read, true, message("the reply cannot be used: ", why)};
    case HttpOutcome::broken:
      return Problem{ErrorKind::read, true, message("the connection broke: ", why)};
    case HttpOutcome::unreached:
      return Problem{ErrorKind::read, true,
                     message("the server ", call.target.host, " was not reached: ", why)};
    case HttpOutcome::untrusted:
      return Problem{ErrorKind::config, false,
                     message("the certificate of ", call.target.host, " is not trusted: ", why,
                             "; ca_file= names the one that vouches for it")};
    case HttpOutcome::late:
      return Problem{
          ErrorKind::read_timeout, true,
          message("the reply stood still for ", config_.http.stall_timeout.count() / 1000, " s")};
    case HttpOutcome::cancelled:
      return Problem{ErrorKind::read, false, "the request was given up"};
  }
  const int status = http.head.status();
  const bool is_success =
      http.expected ? http.verdict == RangeVerdict::right : status >= 200 && status <= 299;
  if (is_success) return std::nullopt;
  return problem_of_reply(call);
}

S3Client::Problem S3Client::problem_of_reply(const S3Call& call) const {
  const HttpRequest& http = call.http;
  const int status = http.head.status();
  Problem problem;
  problem.error = parse_s3_error(http.text);
  const S3Error& error = problem.error;
  problem.may_pass = is_one_of(kPassingStatuses, status) || is_one_of(kPassingCodes, error.code);
  problem.text = message("the server answers ", status);
  if (!error.code.empty()) append(problem.text, message(" ", error.code));
  if (!error.message.empty()) {
    append(problem.text, message(", ", quoted(without_secrets(error.message, *call.credentials))));
  }
  if (problem.may_pass) return problem;
  if (status == 404) {
    const bool was_there = call.http.expected && error.code != "NoSuchBucket";
    problem.kind = was_there ? ErrorKind::file_changed : ErrorKind::not_found;
  } else if (status == 401 || status == 403) {
    problem.kind = ErrorKind::access;
  } else if (status == 412 || status == 409) {
    problem.kind = ErrorKind::file_changed;
  } else if (status == 400 || (status >= 300 && status <= 399)) {
    problem.kind = ErrorKind::config;
  }
  return problem;
}

// Whether there is a reason why the same request would be well now. Each reason counts once.
bool S3Client::mend(S3Call& call, const Problem& problem) {
  const ResponseHead& head = call.http.head;
  const int status = head.status();
  if (call.http.outcome != HttpOutcome::replied || status < 300 || problem.may_pass) return false;
  const std::string& code = problem.error.code;
  // Of HEAD the reply has no text.
  const bool is_silent = code.empty() && (status == 400 || status == 403);
  const std::string& region =
      head.bucket_region().empty() ? problem.error.region : head.bucket_region();
  const bool is_elsewhere = status == 301 || is_one_of(kOtherRegionCodes, code) || is_silent;
  if (is_elsewhere && !call.has_moved && moves_to(call, region)) return true;
  using std::chrono::system_clock;
  const int64_t now = system_clock::to_time_t(system_clock::now());
  const bool is_skewed =
      code == "RequestTimeTooSkewed" ||
      (is_silent && std::abs(head.date() - now - clock_offset_s_) > kMostSkewSeconds);
  if (is_skewed && head.date() >= 0 && !call.has_set_clock) {
    clock_offset_s_ = head.date() - now;
    return call.has_set_clock = true;
  }
  if ((is_one_of(kExpiredCodes, code) || is_silent) && !call.has_renewed) {
    call.has_renewed = true;
    auto newer = credentials_->renew(*call.credentials);
    if (newer == nullptr || *newer == *call.credentials) return false;
    check(*newer);
    call.credentials = std::move(newer);
    return true;
  }
  return false;
}

bool S3Client::moves_to(S3Call& call, const std::string& region) {
  if (!may_be_region(region) || region == call.region) return false;
  call.has_moved = true;
  const std::lock_guard lock(mutex_);
  region_ = region;
  if (config_.endpoint.empty()) endpoint_ = aws_endpoint(region);
  return true;
}

// Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter), and no
// more often than retries_per_s for all: a server in distress gets time.
Clock::time_point S3Client::next_attempt(int attempts) {
  using Seconds = std::chrono::duration<double>;
  const auto now = Clock::now();
  const double most =
      std::min(Seconds(config_.most_backoff).count(),
               std::ldexp(Seconds(config_.first_backoff).count(), std::min(attempts - 1, 30)));
  const std::lock_guard lock(mutex_);
  const double wait = std::uniform_real_distribution<double>(0, most)(random_);
  // As many as come in a second may come at once.
  next_retry_ = std::max(next_retry_, now - std::chrono::seconds(1)) +
                std::chrono::duration_cast<Clock::duration>(Seconds(1 / config_.retries_per_s));
  return std::max(now + std::chrono::duration_cast<Clock::duration>(Seconds(wait)), next_retry_);
}

S3Client::Next S3Client::fail(S3Call& call, const Problem& problem, std::string_view more) {
  std::string text = message(name_of(call), ": ", problem.text);
  if (call.attempts > 1) {
    const double seconds = static_cast<double>(nanoseconds_since(call.begun)) * 1e-9;
    append(text,
           message(" (attempt ", call.attempts, ", after ", std::round(seconds * 10) / 10, " s)"));
  }
  const std::string& id =
      call.http.head.request_id().empty() ? problem.error.request_id : call.http.head.request_id();
  if (!id.empty()) append(text, message(", request id ", quoted(id)));
  append(text, more.empty() ? advice(problem.kind, call.http.head.status()) : more);
  call.error = Error(problem.kind, without_secrets(std::move(text), *call.credentials));
  return Next::done;
}

void S3Client::call(S3Call& call, const WaitCallback& on_wait) {
  HttpInbox inbox;
  call.http.inbox = &inbox;
  begin(call);
  bool is_in_flight = true;
  try {
    while (true) {
      if (is_in_flight && inbox.take() != nullptr) {
        is_in_flight = false;
        if (judge(call) == Next::done) break;
      }
      if (!is_in_flight && Clock::now() >= call.not_before) {
        submit(call);
        is_in_flight = true;
      }
      const auto left = is_in_flight
                            ? kWaitSlice
                            : std::chrono::ceil<milliseconds>(call.not_before - Clock::now());
      inbox.wait(std::clamp(left, milliseconds(0), kWaitSlice));
      if (on_wait) on_wait();
    }
  } catch (...) {
    if (is_in_flight) cancel(call);
    while (is_in_flight && inbox.take() == nullptr) inbox.wait(kWaitSlice);
    throw;
  }
  if (call.error) throw Error(*call.error);
}

}  // namespace s3io
