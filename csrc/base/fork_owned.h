// What belongs to the process that made it: in a forked child its rings and threads are the
// parent's, and its locks may be held by nobody. There it is neither used nor destroyed.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "base/fork_count.h"

namespace s3io {

// The process that made something.
class HomeProcess {
 public:
  // False in a forked child.
  bool is_here() const { return fork_count() == count_; }

 private:
  uint32_t count_ = fork_count();
};

// Leaves it for good: the kernel, or a thread, may yet use it.
template <typename T>
void never_destroy(std::unique_ptr<T> value) {
  static_cast<void>(value.release());
}

// Like a std::unique_ptr, but not destroyed in a forked child.
template <typename T>
class ForkOwned {
 public:
  ForkOwned() = default;
  ForkOwned(const ForkOwned&) = delete;
  ForkOwned& operator=(const ForkOwned&) = delete;
  ForkOwned& operator=(std::unique_ptr<T> value) {
    value_ = std::move(value);
    return *this;
  }
  ~ForkOwned() {
    if (!is_here()) never_destroy(take());
  }

  bool is_here() const { return home_.is_here(); }
  bool operator==(std::nullptr_t) const { return value_ == nullptr; }
  T& operator*() const { return *value_; }
  T* operator->() const { return value_.get(); }
  std::unique_ptr<T> take() { return std::move(value_); }

 private:
  const HomeProcess home_ = {};
  std::unique_ptr<T> value_;
};

}  // namespace s3io
