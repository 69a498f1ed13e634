#include "http/shared_credentials.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

constexpr milliseconds kLookAgain{10};
constexpr milliseconds kGivenUp{5'000};  // nobody waits for so long after a wait in vain

double seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// One line each: whether they are renewed, when they expire, access key, secret key, token; the
// rest is the problem.
SharedCredentials parse_shared(std::string_view text) {
  const auto next_line = [&] {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    return line;
  };
  SharedCredentials shared;
  shared.is_renewed = next_line() == "1";
  const std::string_view expires = next_line();
  int64_t seconds = 0;
  std::from_chars(expires.data(), expires.data() + expires.size(), seconds);
  shared.expires_s = static_cast<double>(seconds);
  shared.credentials.access_key = next_line();
  shared.credentials.secret_key = next_line();
  shared.credentials.session_token = next_line();
  shared.problem = text;
  return shared;
}

class BoardCredentials final : public CredentialSource {
 public:
  BoardCredentials(std::shared_ptr<const TextBoard> board, milliseconds patience,
                   WaitCallback on_wait)
      : board_(std::move(board)), patience_(patience), on_wait_(std::move(on_wait)) {}

  std::shared_ptr<const Credentials> current() override {
    Said said = read();
    if (has_expired(*said) && said->is_renewed) said = read_newer();
    if (!has_expired(*said)) return {said, &said->credentials};
    const double ago = std::round(seconds_since_1970() - said->expires_s);
    throw Error(ErrorKind::access,
                message("the credentials for object storage expired ", ago, " s ago, and ",
                        no_newer(*said), "; renew them, as by `aws sso login`"));
  }

  std::shared_ptr<const Credentials> renew(const Credentials& refused) override {
    Said said = read();
    if (said->credentials == refused && said->is_renewed) said = read_newer();
    if (said->credentials == refused) return nullptr;
    return {said, &said->credentials};
  }

 private:
  using Said = std::shared_ptr<const SharedCredentials>;

  static bool has_expired(const SharedCredentials& shared) {
    return shared.expires_s > 0 && seconds_since_1970() >= shared.expires_s;
  }

  std::string no_newer(const SharedCredentials& shared) const {
    if (!shared.problem.empty()) {
      return message("there are no newer ones: ",
                     without_secrets(shared.problem, shared.credentials));
    }
    const double seconds = std::chrono::duration<double>(patience_).count();
    return message("the main process, which renews them, had no newer ones within ", seconds, " s");
  }

  Said read() {
    const std::lock_guard lock(mutex_);
    if (said_ == nullptr || board_->version() != version_) {
      std::string text;
      version_ = board_->read(text);
      said_ = std::make_shared<const SharedCredentials>(parse_shared(text));
    }
    return said_;
  }

  // After the answer to a ring, which may say the same ones again.
  Said read_newer() {
    const uint64_t before = board_->version();
    const bool has_given_up = Clock::now() < given_up_until_.load();
    const Clock::time_point deadline = Clock::now() + (has_given_up ? milliseconds(0) : patience_);
    board_->ring();
    while (board_->version() == before && Clock::now() < deadline) {
      std::this_thread::sleep_for(kLookAgain);
      if (on_wait_) on_wait_();
    }
    const bool is_in_vain = board_->version() == before && !has_given_up;
    if (is_in_vain) given_up_until_ = Clock::now() + kGivenUp;
    return read();
  }

  const std::shared_ptr<const TextBoard> board_;
  const milliseconds patience_;
  const WaitCallback on_wait_;
  // Else each of many requests would wait, one after the other.
  std::atomic<Clock::time_point> given_up_until_{Clock::time_point{}};
  std::mutex mutex_;  // guards what follows
  Said said_;
  uint64_t version_ = 0;
};

}  // namespace

void say_credentials(TextBoard& board, const SharedCredentials& shared) {
  check_credentials(shared.credentials);
  const Credentials& keys = shared.credentials;
  board.say(message(shared.is_renewed ? "1\n" : "0\n", std::llround(shared.expires_s), "\n",
                    keys.access_key, "\n", keys.secret_key, "\n", keys.session_token, "\n",
                    shared.problem));
}

std::shared_ptr<CredentialSource> credentials_on(std::shared_ptr<const TextBoard> board,
                                                 milliseconds patience, WaitCallback on_wait) {
  return std::make_shared<BoardCredentials>(std::move(board), patience, std::move(on_wait));
}

}  // namespace s3io
