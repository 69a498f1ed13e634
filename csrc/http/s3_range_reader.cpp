#include "http/s3_range_reader.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/counter.h"
#include "base/fork_owned.h"

namespace s3io {
namespace {

void append_number(std::string& text, int64_t number) {
  char digits[24];
  text.append(digits, std::to_chars(digits, digits + sizeof(digits), number).ptr);
}

void set_range(S3Call& call, int64_t offset, int64_t length) {
  call.headers.resize(std::max<size_t>(call.headers.size(), 1));
  call.headers[0].name = "range";
  std::string& bytes = call.headers[0].value;
  bytes = "bytes=";
  append_number(bytes, offset);
  bytes += '-';
  append_number(bytes, offset + length - 1);
}

// It comes after "range", as soon as it is known.
void set_if_match(S3Call& call, std::string_view etag) {
  const size_t before = call.http.expected->is_look() ? 0 : 1;
  call.http.expected->etag = etag;
  call.headers.resize(before + (etag.empty() ? 0 : 1));
  if (etag.empty()) return;
  HttpHeader& header = call.headers.back();
  header.name = "if-match";
  header.value = '"';
  header.value += etag;
  header.value += '"';
}

}  // namespace

S3Object::S3Object(std::string path, const ObjectVersion& version, std::string etag,
                   std::string crc32c)
    : path_(std::move(path)),
      name_(parse_s3_path(path_)),
      size_bytes_(version.size_bytes),
      etag_number_(version.modified_ns),
      crc32c_(std::move(crc32c)),
      etag_(std::move(etag)),
      has_etag_(!etag_.empty()) {}

std::string_view S3Object::etag() const {
  return has_etag_.load(std::memory_order_acquire) ? std::string_view(etag_) : std::string_view();
}

void S3Object::learn_etag(const std::string& etag) {
  if (has_etag_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  if (has_etag_.load(std::memory_order_relaxed)) return;
  etag_ = etag;
  has_etag_.store(true, std::memory_order_release);
}

S3RangeReader::S3RangeReader(std::shared_ptr<S3Client> client, int depth, int64_t part_bytes,
                             ReadCounters& counters)
    : client_(std::move(client)),
      part_bytes_(part_bytes),
      counters_(counters),
      inbox_(std::make_unique<HttpInbox>()) {
  for (int number = 0; number < std::max(depth, 1); ++number) {
    parts_.push_back(std::make_unique<Part>());
    parts_.back()->call.http.inbox = inbox_.get();
    parts_.back()->call.http.owner = parts_.back().get();
    idle_.push_back(parts_.back().get());
  }
}

S3RangeReader::~S3RangeReader() {
  if (home_.is_here() && abandon(kAbandonTimeout)) return;
  never_destroy(std::move(inbox_));
  for (auto& part : parts_) never_destroy(std::move(part));
}

void S3RangeReader::push(RangeRead& range) {
  range.error.reset();
  range.next_offset = range.offset;
  range.parts_in_flight = 0;
  range.next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = &range;
  last_ = &range;
}

void S3RangeReader::run(std::vector<RangeRead*>& finished, milliseconds timeout) {
  if (!home_.is_here()) {
    throw Error(ErrorKind::config,
                "this reader belongs to the parent process; make a store of its own after fork");
  }
  const size_t finished_before = finished.size();
  const Clock::time_point deadline = Clock::now() + timeout;
  const bool had_backlog = has_backlog();
  while (!idle()) {
    begin_parts(finished);
    take_back(finished);
    const Clock::time_point next_due = std::min(repeat_what_is_due(finished), deadline);
    if (interruption_) std::rethrow_exception(std::exchange(interruption_, nullptr));
    const bool has_caught_up = had_backlog && !has_backlog();
    if (finished.size() > finished_before || has_caught_up || Clock::now() >= deadline) return;
    if (first_ != nullptr && !idle_.empty()) continue;
    const auto left = std::chrono::ceil<milliseconds>(next_due - Clock::now());
    inbox_->wait(std::max(left, milliseconds(0)));
  }
}

// False where it threw: the part has that error.
template <typename Act>
bool S3RangeReader::try_to(Part& part, const Act& act) {
  try {
    act();
    return true;
  } catch (const Error& error) {
    part.call.error = error;
  } catch (...) {
    part.call.error = Error(ErrorKind::read, "the source of credentials was interrupted");
    interruption_ = std::current_exception();
  }
  return false;
}

void S3RangeReader::begin_parts(std::vector<RangeRead*>& finished) {
  while (first_ != nullptr && !idle_.empty() && !interruption_) {
    RangeRead& range = *first_;
    // What it lacks is of no use any more: the part that failed gives it back, or a later one.
    if (!range.error) {
      Part& part = *idle_.back();
      idle_.pop_back();
      begin(part, range);
      if (try_to(part, [&] { client_->begin(part.call); })) {
        add(counters_.requests, 1);
      } else {
        if (range.next_offset == range.offset + range.length) first_ = range.next;
        end(part, finished);
        continue;
      }
    }
    if (range.error || range.next_offset == range.offset + range.length) first_ = range.next;
  }
}

void S3RangeReader::begin(Part& part, RangeRead& range) {
  auto& object = static_cast<S3Object&>(*range.object);
  const int64_t offset = range.next_offset;
  const int64_t length = std::min(part_bytes_, range.offset + range.length - offset);
  range.next_offset += length;
  range.parts_in_flight += 1;
  part.range = &range;
  part.is_waiting = false;
  S3Call& call = part.call;
  call.object.bucket = object.name().bucket;
  call.object.key = object.name().key;
  call.http.expected = {offset, length, object.size(), {}, object.etag_number()};
  call.method = call.http.expected->is_look() ? "HEAD" : "GET";
  if (length > 0) set_range(call, offset, length);
  set_if_match(call, object.etag());
  call.http.data = range.data + (offset - range.offset);
}

void S3RangeReader::take_back(std::vector<RangeRead*>& finished) {
  HttpRequest* next = nullptr;
  for (HttpRequest* request = inbox_->take(); request != nullptr; request = next) {
    next = request->next;
    Part& part = *static_cast<Part*>(request->owner);
    if (request->outcome == HttpOutcome::broken) add(counters_.short_reads, 1);
    bool is_done = true;
    try_to(part, [&] { is_done = client_->judge(part.call) == S3Client::Next::done; });
    if (is_done) {
      end(part, finished);
    } else {
      part.is_waiting = true;
    }
  }
}

Clock::time_point S3RangeReader::repeat_what_is_due(std::vector<RangeRead*>& finished) {
  Clock::time_point next_due = Clock::time_point::max();
  for (const auto& part : parts_) {
    if (!part->is_waiting) continue;
    if (part->range->error) {  // no part of it is worth another attempt
      end(*part, finished);
    } else if (Clock::now() < part->call.not_before) {
      next_due = std::min(next_due, part->call.not_before);
    } else {
      part->is_waiting = false;
      add(counters_.retries, 1);
      set_if_match(part->call, static_cast<S3Object&>(*part->range->object).etag());
      if (!try_to(*part, [&] { client_->submit(part->call); })) end(*part, finished);
    }
  }
  return next_due;
}

void S3RangeReader::end(Part& part, std::vector<RangeRead*>& finished) {
  RangeRead& range = *std::exchange(part.range, nullptr);
  part.is_waiting = false;
  idle_.push_back(&part);
  completions_ += 1;
  range.parts_in_flight -= 1;
  if (part.call.error) {
    if (!range.error) range.error = part.call.error;
  } else {
    static_cast<S3Object&>(*range.object).learn_etag(part.call.http.head.etag());
    const int64_t length = part.call.http.expected->length;
    add(counters_.direct_bytes, length);
    add(range.has_checksums ? counters_.verified_bytes : counters_.unverified_bytes, length);
  }
  if (range.parts_in_flight > 0) return;
  const bool is_whole = range.next_offset == range.offset + range.length;
  if (!is_whole && !range.error) return;
  if (first_ == &range) first_ = range.next;
  finished.push_back(&range);
}

bool S3RangeReader::abandon(milliseconds timeout) noexcept {
  if (!home_.is_here()) return false;
  const Clock::time_point deadline = Clock::now() + timeout;
  first_ = nullptr;
  const auto forget = [&](Part& part) {
    part.range->parts_in_flight -= 1;
    part.range = nullptr;
    part.is_waiting = false;
    idle_.push_back(&part);
  };
  for (const auto& part : parts_) {
    if (part->is_waiting) {
      forget(*part);
    } else if (part->range != nullptr) {
      client_->cancel(part->call);
    }
  }
  while (idle_.size() < parts_.size()) {
    for (HttpRequest* one = inbox_->take(); one != nullptr; one = one->next) {
      forget(*static_cast<Part*>(one->owner));
    }
    if (idle_.size() == parts_.size() || Clock::now() >= deadline) break;
    inbox_->wait(kWaitSlice);
  }
  return idle_.size() == parts_.size();
}

}  // namespace s3io
