#include "http/credentials.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

constexpr size_t kLeastHidden = 8;  // bytes of a secret that tell nothing yet
constexpr size_t kShortKey = 16;    // an access key that may be part of other words

class FixedCredentials final : public CredentialSource {
 public:
  explicit FixedCredentials(Credentials credentials)
      : credentials_(std::make_shared<const Credentials>(std::move(credentials))) {}

  std::shared_ptr<const Credentials> current() override { return credentials_; }
  std::shared_ptr<const Credentials> renew(const Credentials&) override { return nullptr; }

 private:
  const std::shared_ptr<const Credentials> credentials_;
};

// How many bytes at the beginning of the text are a part of the secret; 0: too few.
size_t hidden_bytes(std::string_view text, std::string_view secret) {
  const size_t least = std::min(secret.size(), kLeastHidden);
  if (least == 0 || text.size() < least) return 0;
  size_t most = 0;
  for (size_t at = secret.find(text.substr(0, least)); at != std::string_view::npos;
       at = secret.find(text.substr(0, least), at + 1)) {
    const std::string_view part = secret.substr(at);
    const auto ends = std::mismatch(text.begin(), text.end(), part.begin(), part.end());
    most = std::max(most, static_cast<size_t>(ends.first - text.begin()));
  }
  return most;
}

bool is_word_character(char one) {
  return (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || (one >= '0' && one <= '9');
}

bool is_access_key(std::string_view text, size_t at, std::string_view key) {
  if (key.empty() || !text.substr(at).starts_with(key)) return false;
  if (key.size() >= kShortKey) return true;
  const size_t end = at + key.size();
  return (at == 0 || !is_word_character(text[at - 1])) &&
         (end == text.size() || !is_word_character(text[end]));
}

}  // namespace

std::shared_ptr<CredentialSource> fixed_credentials(Credentials credentials) {
  return std::make_shared<FixedCredentials>(std::move(credentials));
}

void check_credentials(const Credentials& credentials) {
  for (const std::string* text :
       {&credentials.access_key, &credentials.secret_key, &credentials.session_token}) {
    if (std::ranges::all_of(*text, [](char one) { return one > 0x20 && one < 0x7f; })) continue;
    throw Error(ErrorKind::config,
                "a key or a token of the credentials has a blank, a line break or a letter beyond "
                "ASCII: it was copied with what stood around it");
  }
}

std::string without_secrets(std::string_view text, const Credentials& credentials) {
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    size_t bytes = std::max(hidden_bytes(text.substr(at), credentials.secret_key),
                            hidden_bytes(text.substr(at), credentials.session_token));
    if (is_access_key(text, at, credentials.access_key)) {
      bytes = std::max(bytes, credentials.access_key.size());
    }
    if (bytes == 0) {
      shown += text[at++];
    } else {
      shown += "...";
      at += bytes;
    }
  }
  return shown;
}

}  // namespace s3io
