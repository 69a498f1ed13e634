#include "http/s3_client.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/fork_gate.h"

namespace s3io {
namespace {

constexpr int kMostMalformed = 3;  // replies that are none, before the server is given up
constexpr int kMostMisnamed = 5;   // attempts at a server that never replied to anything
constexpr int64_t kMostSkewSeconds = 300;
constexpr size_t kMostRegions = 64;  // that servers may send requests to
constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

constexpr std::array<std::string_view, 3> kOtherRegionCodes{
    "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"};

void check(const S3Config& config) {
  const HttpSettings& http = config.http;
  const bool is_well = config.max_attempts >= 1 && config.retry_timeout_s >= 0 &&
                       config.first_backoff.count() >= 0 && config.most_backoff.count() >= 0 &&
                       config.retries_per_s >= S3Config::kLeastRetriesPerS &&
                       http.connect_timeout.count() > 0 && http.stall_timeout.count() > 0 &&
                       http.max_idle_s > 0;
  if (!is_well) {
    throw Error(
        ErrorKind::config,
        message("max_attempts and timeouts must be more than 0, retries_per_s at least ",
                S3Config::kLeastRetriesPerS, ", and no other time of S3Config less than 0"));
  }
}

}  // namespace

S3Client::S3Client(S3Config config, std::shared_ptr<CredentialSource> credentials,
                   std::shared_ptr<Transport> transport)
    : config_(std::move(config)),
      credentials_(std::move(credentials)),
      transport_(std::move(transport)),
      place_{config_.region, config_.endpoint.empty() ? aws_endpoint(config_.region)
                                                      : parse_endpoint(config_.endpoint)},
      random_(std::random_device()()) {
  check(config_);
  if (!may_be_region(config_.region)) static_cast<void>(aws_endpoint(config_.region));  // says so
}

// In a forked child others may hold the locks for ever.
void S3Client::check_process() const {
  if (home_.is_here()) return;
  throw Error(ErrorKind::config,
              "this store belongs to the parent process; make one of its own after fork");
}

void S3Client::begin(S3Call& call) {
  check_process();
  call.error.reset();
  call.doubt = Doubt::none;
  call.failed.reset();
  call.attempts = call.malformed = 0;
  call.begun = Clock::now();
  call.has_renewed = call.has_set_clock = call.has_moved = false;
  call.http.is_fresh = false;
  call.clock_offset_s = clock_offset_s_;
  call.credentials = credentials_->current();
  check_credentials(*call.credentials);
  {
    const std::lock_guard lock(mutex_);
    const auto moved = moved_.find(call.object.bucket);
    call.place = moved == moved_.end() ? &place_ : moved->second;
  }
  submit(call);
}

void S3Client::cancel(S3Call& call) noexcept {
  if (home_.is_here()) transport_->cancel(call.http);
}

void S3Client::submit(S3Call& call) {
  check_process();
  call.http.method = call.method;
  call.http.settings = &config_.http;
  address_and_sign(call);
  call.attempts += 1;
  transport_->submit(call.http);
}

void S3Client::address_and_sign(S3Call& call) {
  const NotWhileForking at_work;  // OpenSSL
  using std::chrono::system_clock;
  const int64_t now = system_clock::to_time_t(system_clock::now());
  const AmzDate date = amz_date(now + call.clock_offset_s);
  address(call.place->endpoint, config_.endpoint.empty(), config_.addressing, call.object,
          call.target);
  call.http.url = call.target.url;
  if (!call.query.empty()) {
    call.http.url += '?';
    call.http.url += call.query;
  }
  set_headers(call, date);
}

// "host" is signed, too.
bool is_signed_header(std::string_view name) {
  return name.starts_with("x-amz-") || name.starts_with("content-");
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
    const bool is_hashed = !call.http.payload.empty() && !call.place->endpoint.is_tls;
    if (is_hashed) payload_hash = hex(sha256(call.http.payload));
    add("x-amz-content-sha256", is_hashed                   ? std::string_view(payload_hash)
                                : call.http.payload.empty() ? kEmptyHash
                                                            : kUnsignedPayload);
    add("x-amz-date", {date.data(), date.size()});
    if (!credentials.session_token.empty()) add("x-amz-security-token", credentials.session_token);
  }
  if (config_.requester_pays) add("x-amz-request-payer", "requester");
  for (const HttpHeader& header : call.headers) {
    if (is_signed_header(header.name)) add(header.name, header.value);
  }
  const size_t num_signed = count;
  std::sort(headers.begin(), headers.begin() + static_cast<int64_t>(count),
            [](const HttpHeader& one, const HttpHeader& other) { return one.name < other.name; });
  for (const HttpHeader& header : call.headers) {
    if (!is_signed_header(header.name)) add(header.name, header.value);
  }
  if (is_signed) {
    add("authorization", "");
    const std::span to_sign(headers.data(), num_signed);
    const auto hash = std::ranges::find(to_sign, "x-amz-content-sha256", &HttpHeader::name);
    const std::lock_guard lock(mutex_);
    signer_.sign({call.method, call.target.path, call.query, to_sign, hash->value}, credentials,
                 call.place->region, date, headers[count - 1].value);
  }
  headers.resize(count);
}

S3Client::Next S3Client::judge(S3Call& call) {
  const HttpOutcome outcome = call.http.outcome;
  if (outcome == HttpOutcome::replied) has_replied_ = true;
  if (outcome == HttpOutcome::refused) call.malformed += 1;
  const std::optional<S3Problem> problem = problem_of(call);
  if (!problem) {
    if (call.has_set_clock) clock_offset_s_ = call.clock_offset_s;
    return Next::done;
  }
  if (!call.failed) call.failed = Clock::now();
  call.doubt = std::max(call.doubt, doubt_of(call.http, *problem));
  call.http.is_fresh = true;
  if (mend(call, *problem)) {
    call.not_before = Clock::now();
    return Next::again;
  }
  const auto fail = [&](std::string_view more) {
    call.error = error_of(call, *problem, more);
    return Next::done;
  };
  const bool is_nowhere = outcome == HttpOutcome::unreached || outcome == HttpOutcome::misnamed;
  if (!problem->may_pass || (!call.may_repeat && !is_nowhere)) return fail("");
  if (call.malformed >= kMostMalformed) {
    return fail(call.http.head.has_content_encoding()
                    ? kEncodedAdvice
                    : ": the server, or what is between, does not speak S3's protocol");
  }
  if (outcome == HttpOutcome::misnamed && !has_replied_ && call.attempts >= kMostMisnamed) {
    return fail("; endpoint= or region= may be wrong, or a proxy is needed (https_proxy)");
  }
  if (call.attempts >= config_.max_attempts) {
    return fail("; raise max_attempts if that may pass");
  }
  if (!plan_next_attempt(call)) {
    return fail("; raise retry_timeout_s if that may pass");
  }
  return Next::again;
}

// Whether there is a reason why the same request would be well now. Each reason counts once.
bool S3Client::mend(S3Call& call, const S3Problem& problem) {
  const ResponseHead& head = call.http.head;
  const int status = head.status();
  if (call.http.outcome != HttpOutcome::replied || status < 300 || problem.may_pass) return false;
  const std::string& code = problem.error.code;
  // Of HEAD the reply has no text.
  const bool is_silent = code.empty() && (status == 400 || status == 403);
  const std::string& region =
      head.bucket_region().empty() ? problem.error.region : head.bucket_region();
  const bool is_elsewhere =
      status == 301 || status == 307 || is_one_of(kOtherRegionCodes, code) || is_silent;
  if (is_elsewhere && !call.has_moved && moves_to(call, region)) return true;
  using std::chrono::system_clock;
  const int64_t now = system_clock::to_time_t(system_clock::now());
  const bool is_skewed =
      code == "RequestTimeTooSkewed" ||
      (is_silent && std::abs(head.date() - now - call.clock_offset_s) > kMostSkewSeconds);
  if (is_skewed && head.date() >= 0 && !call.has_set_clock) {
    call.clock_offset_s = head.date() - now;
    return call.has_set_clock = true;
  }
  const bool is_expired = is_one_of(kExpiredCodes, code) || (is_silent && status == 400);
  if (is_expired || is_silent || is_one_of(kWrongKeyCodes, code)) {
    auto newer = newer_credentials(call, is_expired);
    if (newer == nullptr || *newer == *call.credentials) return false;
    check_credentials(*newer);
    call.credentials = std::move(newer);
    return true;
  }
  return false;
}

bool S3Client::moves_to(S3Call& call, const std::string& region) {
  if (!may_be_region(region) || region == call.place->region) return false;
  const std::lock_guard lock(mutex_);
  auto place = places_.find(region);
  if (place == places_.end()) {
    if (places_.size() >= kMostRegions) return false;
    const Endpoint other = config_.endpoint.empty() ? aws_endpoint(region) : place_.endpoint;
    place = places_.emplace(region, S3Place{region, other}).first;
  }
  call.place = moved_[call.object.bucket] = &place->second;
  return call.has_moved = true;
}

// Null, or those that were refused, where there are none. Once for a call.
std::shared_ptr<const Credentials> S3Client::newer_credentials(S3Call& call, bool is_expired) {
  const bool asks = is_expired || is_first_doubt(call.credentials);
  if (std::exchange(call.has_renewed, true)) return nullptr;
  // What another call has asked for may be there.
  return asks ? credentials_->renew(*call.credentials) : credentials_->current();
}

// Where the server did not say that they have expired, but forbids, they are renewed once. Else
// each object that is forbidden would be a renewal.
bool S3Client::is_first_doubt(const std::shared_ptr<const Credentials>& refused) {
  const std::lock_guard lock(mutex_);
  const bool is_new = doubted_ == nullptr || *doubted_ != *refused;
  doubted_ = refused;
  return is_new;
}

// Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter), and no
// more often than retries_per_s for all: a server in distress gets time. False where that is too
// late. How long the first attempt took does not count.
bool S3Client::plan_next_attempt(S3Call& call) {
  using Seconds = std::chrono::duration<double>;
  const auto now = Clock::now();
  const double most =
      std::min(Seconds(config_.most_backoff).count(),
               std::ldexp(Seconds(config_.first_backoff).count(), std::min(call.attempts - 1, 30)));
  const std::lock_guard lock(mutex_);
  const double wait = std::uniform_real_distribution<double>(0, most)(random_);
  // As many as come in a second may come at once.
  const auto in = [](double seconds) {
    return std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
  };
  const auto next_retry =
      std::max(next_retry_, now - std::chrono::seconds(1)) + in(1 / config_.retries_per_s);
  // As the server says, but no longer than without its word.
  const double asked = static_cast<double>(std::max<int64_t>(call.http.head.retry_after_s(), 0));
  const double least = std::min(asked, Seconds(config_.most_backoff).count());
  call.not_before = std::max(now + in(std::max(wait, least)), next_retry);
  if (call.not_before - *call.failed >= Seconds(config_.retry_timeout_s)) return false;
  next_retry_ = next_retry;
  return true;
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
