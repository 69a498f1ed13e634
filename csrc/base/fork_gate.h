// Work that no fork may fall into: that of libraries with locks of their own, which a forked child
// would inherit locked, by a thread that it does not have.
#pragma once

namespace s3io {

// As long as one lives, fork(2) of other threads waits. Making one waits for a fork that has begun.
// Any thread, one at a time; keep it short.
class NotWhileForking {
 public:
  NotWhileForking();
  NotWhileForking(const NotWhileForking&) = delete;
  NotWhileForking& operator=(const NotWhileForking&) = delete;
  ~NotWhileForking();
};

}  // namespace s3io
