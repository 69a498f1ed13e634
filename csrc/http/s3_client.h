// Requests to S3: signed, repeated where that may help, and understood.
//
// An S3Call is one operation with all its attempts. Who has one or many in flight drives them:
//
//     client.begin(call);                        // signs, and submits the first attempt
//     ... the request comes back to its inbox ...
//     switch (client.judge(call)) {
//       case done:   call.http has the reply, or call.error says what went wrong
//       case again:  client.submit(call) at call.not_before, or later
//     }
//
// `call` does the same for one, and waits.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>

#include "base/fork_owned.h"
#include "http/credentials.h"
#include "http/s3_call.h"
#include "http/s3_problem.h"
#include "http/sigv4.h"
#include "http/transport.h"
#include "http/url.h"
#include "store/store.h"

namespace s3io {

struct S3Config {
  std::string endpoint = {};  // "http://host:9000"; empty: AWS's of the region
  std::string region = "us-east-1";
  Addressing addressing = Addressing::automatic;
  bool requester_pays = false;
  HttpSettings http = {};
  int max_attempts = 12;            // of one request, the first one included
  double retry_timeout_s = 60;      // no attempt begins later than so long after a failure
  milliseconds first_backoff{100};  // the next one waits up to so long, then up to twice, ...
  milliseconds most_backoff{10'000};
  double retries_per_s = 50;  // of all requests together, beyond as many at once
  static constexpr double kLeastRetriesPerS = 1e-3;
};

// Any thread, but a call belongs to one at a time.
class S3Client {
 public:
  // Throws Error(config).
  S3Client(S3Config config, std::shared_ptr<CredentialSource> credentials,
           std::shared_ptr<Transport> transport);

  // Throws what the source of credentials throws, and Error(config) in a forked child.
  void begin(S3Call& call);
  void submit(S3Call& call);  // one more attempt; the same
  void cancel(S3Call& call) noexcept;
  enum class Next : uint8_t { done, again };
  Next judge(S3Call& call);

  // Begins it and waits for its end. Throws its error, and what `on_wait` throws.
  void call(S3Call& call, const WaitCallback& on_wait = {});

 private:
  void check_process() const;
  void address_and_sign(S3Call& call);
  void set_headers(S3Call& call, const AmzDate& date);
  bool mend(S3Call& call, const S3Problem& problem);
  bool moves_to(S3Call& call, const std::string& region);
  std::shared_ptr<const Credentials> newer_credentials(S3Call& call, bool is_expired);
  bool is_first_doubt(const std::shared_ptr<const Credentials>& refused);
  bool plan_next_attempt(S3Call& call);

  const S3Config config_;
  const std::shared_ptr<CredentialSource> credentials_;
  const std::shared_ptr<Transport> transport_;
  const HomeProcess home_ = {};
  const S3Place place_;                     // of the configuration
  std::atomic<int64_t> clock_offset_s_{0};  // of replies that were well
  std::atomic<bool> has_replied_{false};    // the server: its name is right
  std::mutex mutex_;                        // guards what follows
  std::map<std::string, S3Place> places_;   // others, by their region; none is ever removed
  std::map<std::string, const S3Place*, std::less<>> moved_;  // buckets that are in one of them
  std::shared_ptr<const Credentials> doubted_;  // an error did not say that they have expired
  Signer signer_;
  std::mt19937_64 random_;
  Clock::time_point next_retry_{};  // no retry may begin before, of whatever request
};

}  // namespace s3io
