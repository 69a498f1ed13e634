#include "memory/text_board.h"

#include <sched.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/limits.h"

namespace s3io {
namespace {

// Writing takes microseconds; only a process that was killed meanwhile leaves it unfinished.
constexpr int kTriesToRead = 100'000;

UniqueFd make_bell() {
  UniqueFd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (bell.valid()) return bell;
  const int error = errno;
  throw Error(kind_of_errno(error),
              message("cannot make an eventfd: ", errno_text(error), limit_hint(error)));
}

}  // namespace

TextBoard::TextBoard() : TextBoard(make_memory_file(sizeof(Page)), make_bell()) {}

TextBoard::TextBoard(UniqueFd fd, UniqueFd bell)
    : fd_(std::move(fd)),
      bell_(std::move(bell)),
      memory_(fd_.get(), 0, sizeof(Page), sizeof(Page)),
      page_(reinterpret_cast<Page*>(memory_.data())) {}

void TextBoard::say(std::string_view text) {
  if (text.size() > kMostBytes) {
    throw Error(ErrorKind::config, message("a text of ", text.size(), " bytes is longer than the ",
                                           kMostBytes, " that other processes can be told"));
  }
  const uint64_t version = page_->version.load();
  page_->version.store(version + 1);
  page_->bytes.store(text.size());
  for (size_t at = 0; at < text.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, std::min(sizeof(word), text.size() - at));
    page_->words[at / sizeof(word)].store(word);
  }
  page_->version.store(version + 2);
}

uint64_t TextBoard::read(std::string& text) const {
  for (int tried = 0; tried < kTriesToRead; ++tried) {
    const uint64_t version = page_->version.load();
    const size_t bytes = std::min<size_t>(page_->bytes.load(), kMostBytes);
    text.resize(bytes);
    for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
      const uint64_t word = page_->words[at / sizeof(word)].load();
      std::memcpy(text.data() + at, &word, std::min(sizeof(word), bytes - at));
    }
    if (version % 2 == 0 && page_->version.load() == version) return version / 2;
    ::sched_yield();
  }
  throw Error(ErrorKind::data, "the main process ended while it was telling its workers something");
}

// A counter that is full is read soon, too.
void TextBoard::ring() const noexcept { ::eventfd_write(bell_.get(), 1); }

}  // namespace s3io
