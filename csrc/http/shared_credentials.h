// Credentials that one process renews, for itself and for the workers that it starts.
//
// Nobody who reads them waits for Python: the thread that renews them says them on a board, which
// all of these processes see. Who needs newer ones rings, and waits for so long as is allowed.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "http/credentials.h"
#include "memory/text_board.h"
#include "store/store.h"

namespace s3io {

inline constexpr milliseconds kRenewalPatience{20'000};

struct SharedCredentials {
  Credentials credentials = {};
  double expires_s = 0;      // since 1970; 0: nobody knows
  bool is_renewed = false;   // somebody answers the bell
  std::string problem = {};  // why there are no newer ones: a sentence's part
};

// Throws Error(config) where a key or a token cannot be one, or is too long.
void say_credentials(TextBoard& board, const SharedCredentials& shared);

// What is on the board. Once they have expired, or a server says so, it asks for newer ones and
// waits up to `patience`. Then `current` throws Error(access), and `renew` gives null. Who asks
// soon after a wait that was in vain does not wait again. While a thread waits it calls `on_wait`;
// what that throws ends the wait.
std::shared_ptr<CredentialSource> credentials_on(std::shared_ptr<const TextBoard> board,
                                                 milliseconds patience = kRenewalPatience,
                                                 WaitCallback on_wait = {});

}  // namespace s3io
