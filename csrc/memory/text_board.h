// A text in memory that several processes see. The process that made it says what it is; the others
// read it, and ring for another one.
//
// Writing takes no lock, so a fork in the middle of it leaves none behind.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "memory/shared_memory.h"

namespace s3io {

class TextBoard {
 public:
  static constexpr size_t kMostBytes = size_t{64} << 10;

  // Throws Error(out_of_memory | no_space | access).
  TextBoard();
  // The board of another process, over its descriptors. Throws Error(out_of_memory | data).
  TextBoard(UniqueFd fd, UniqueFd bell);

  int fd() const { return fd_.get(); }
  // An eventfd, readable once somebody has rung, until it is read.
  int bell_fd() const { return bell_.get(); }

  // The process that made it, one thread at a time. Throws Error(config) where it is too long.
  void say(std::string_view text);

  // Any process. How often something was said.
  uint64_t version() const { return page_->version.load(std::memory_order_acquire) / 2; }
  // What was said last, written over `text`, and its version. Throws Error(data) when the process
  // that made it died while it was saying it.
  uint64_t read(std::string& text) const;
  void ring() const noexcept;

 private:
  struct Page {
    std::atomic<uint64_t> version;  // odd while it is being said
    std::atomic<uint64_t> bytes;
    std::array<std::atomic<uint64_t>, kMostBytes / sizeof(uint64_t)> words;
  };

  const UniqueFd fd_;
  const UniqueFd bell_;
  const SharedMapping memory_;
  Page* const page_;
};

}  // namespace s3io
