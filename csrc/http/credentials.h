// Credentials: where they come from, and how they are kept out of texts.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "http/sigv4.h"

namespace s3io {

// Where credentials come from. Any thread; may block.
class CredentialSource {
 public:
  CredentialSource() = default;
  CredentialSource(const CredentialSource&) = delete;
  CredentialSource& operator=(const CredentialSource&) = delete;
  virtual ~CredentialSource() = default;

  virtual std::shared_ptr<const Credentials> current() = 0;
  // Newer ones than `refused`, which the server says have expired; null where there are none.
  virtual std::shared_ptr<const Credentials> renew(const Credentials& refused) = 0;
};

// Always the same. Without an access key requests are not signed.
std::shared_ptr<CredentialSource> fixed_credentials(Credentials credentials);

// Throws Error(config) where one has a line break, which would begin a header of its own, a blank,
// or a byte beyond ASCII. The text does not repeat it.
void check_credentials(const Credentials& credentials);

// The text with "..." for every part of a secret key or a token that has 8 bytes or more, and for
// an access key, a short one only where it is a word. So it does not matter where a server, or we,
// cut one off.
std::string without_secrets(std::string_view text, const Credentials& credentials);

}  // namespace s3io
