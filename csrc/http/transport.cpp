#include "http/transport.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/limits.h"

namespace s3io {

void HttpRequest::clear_reply() {
  outcome = HttpOutcome::replied;
  verdict = RangeVerdict::other;
  head.clear();
  body_bytes = 0;
  text.clear();
  problem.clear();
  next = nullptr;
  is_cancel_wanted = false;
}

bool HttpRequest::accept_head() {
  if (expected) {
    verdict = judge_range(head, *expected, problem);
    const bool has_no_text = head.status() < 400 || !head.problem().empty();
    const bool is_wrong = verdict == RangeVerdict::changed || verdict == RangeVerdict::malformed;
    if (is_wrong && has_no_text) outcome = HttpOutcome::refused;
  } else if (!head.problem().empty()) {
    problem = head.problem();
    outcome = HttpOutcome::refused;
  } else if (head.status() == 206) {
    problem = "it is a part of an object (206), which this request did not ask for";
    outcome = HttpOutcome::refused;
  }
  return outcome != HttpOutcome::refused;
}

bool HttpRequest::add_body(std::span<const std::byte> part) {
  const bool is_range = verdict == RangeVerdict::right;
  const auto most = is_range ? expected->length : static_cast<int64_t>(most_text_bytes);
  const auto bytes = static_cast<int64_t>(part.size());
  if (bytes > most - body_bytes) {
    outcome = HttpOutcome::refused;
    problem = message("its body is longer than ", most, " bytes");
    return false;
  }
  if (is_range) {
    std::memcpy(data + body_bytes, part.data(), part.size());
  } else {
    text.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  body_bytes += bytes;
  inbox->bytes.fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

void HttpRequest::finish_body() {
  const bool has_none = method == "HEAD" || head.status() == 204 || head.status() == 304;
  const int64_t length = verdict == RangeVerdict::right ? expected->length : head.content_length();
  if (head.status() == 0) {
    outcome = HttpOutcome::broken;
    problem = "nothing came";
  } else if (!has_none && length >= 0 && body_bytes != length) {
    outcome = HttpOutcome::broken;
    problem = message("its body ended after ", body_bytes, " of ", length, " bytes");
  }
}

HttpInbox::HttpInbox() : ready_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (ready_.valid()) return;
  const int error = errno;
  throw Error(kind_of_errno(error),
              message("cannot make an eventfd: ", errno_text(error), limit_hint(error)));
}

void HttpInbox::put(HttpRequest& request) {
  const std::lock_guard lock(mutex_);
  request.next = nullptr;
  if (first_ == nullptr) {
    first_ = &request;
    ::eventfd_write(ready_.get(), 1);  // of one that is empty: cannot fail
  } else {
    last_->next = &request;
  }
  last_ = &request;
}

HttpRequest* HttpInbox::take() {
  const std::lock_guard lock(mutex_);
  HttpRequest* const first = first_;
  if (first != nullptr) {
    eventfd_t count = 0;
    ::eventfd_read(ready_.get(), &count);
  }
  first_ = last_ = nullptr;
  return first;
}

void HttpInbox::wait(milliseconds timeout) const {
  pollfd entry{.fd = ready_.get(), .events = POLLIN, .revents = 0};
  // Whatever it says, the caller looks into it.
  static_cast<void>(::poll(&entry, 1, static_cast<int>(timeout.count())));
}

}  // namespace s3io
