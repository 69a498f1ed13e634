#include "http/s3_parts.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/crc32c.h"
#include "base/fork_owned.h"
#include "base/printable.h"
#include "http/s3_uploads.h"

namespace s3io {
namespace {

constexpr int kCompletions = 3;  // that are tried where the server says that it failed
// S3 completes long uploads for minutes, and sends blanks meanwhile.
constexpr milliseconds kCompletionPatience{300'000};
constexpr milliseconds kFirstCompletionBackoff{100};
constexpr milliseconds kAbortTimeout{10'000};

std::string in_xml(std::string_view text) {
  std::string xml;
  for (const char one : text) {
    switch (one) {
      case '&':
        xml += "&amp;";
        break;
      case '<':
        xml += "&lt;";
        break;
      case '>':
        xml += "&gt;";
        break;
      default:
        xml += one;
    }
  }
  return xml;
}

}  // namespace

struct S3Parts::Part {
  S3Call call;
  size_t number = 0;
  bool is_sent = false;     // it is the transport's
  bool is_waiting = false;  // to be judged, or for its next attempt
  S3PartPayload payload;

  bool is_idle() const { return !is_sent && !is_waiting; }
};

struct S3Parts::InFlight {
  HttpInbox inbox;
  std::vector<std::unique_ptr<Part>> parts;

  int count() const {
    return static_cast<int>(
        std::ranges::count_if(parts, [](const auto& part) { return !part->is_idle(); }));
  }
};

S3Parts::S3Parts(const S3NewObject& object) : object_(object) {}

S3Parts::~S3Parts() {
  if (in_flight_ != nullptr && in_flight_->count() > 0) never_destroy(std::move(in_flight_));
}

void S3Parts::begin(const WaitCallback& on_wait) {
  S3Call call = object_.request("POST", true);
  call.query = "uploads=";
  if (object_.options().checksums) {
    call.headers.push_back({"x-amz-checksum-algorithm", "CRC32C"});
  }
  std::optional<Error> error;
  const auto lose = [&] {  // who does not know its number cannot abort it
    lost_upload_ = message("the server may have begun an upload whose number it did not say: ",
                           how_to_find_upload(object_.path()));
  };
  try {
    error = object_.send(call, on_wait);
  } catch (...) {
    if (call.attempts > 0) lose();
    throw;
  }
  if (call.doubt != Doubt::none) lose();
  if (error) throw Error(object_.of_write(call, *error));
  try {
    id_ = parse_upload_id(call.http.text);
  } catch (const Error& reply) {
    lose();
    throw Error(ErrorKind::write,
                message(object_.path(), ": cannot begin an upload: ", reply.what()));
  }
  shown_id_ = on_one_line(without_secrets(id_, *call.credentials));
  in_flight_ = std::make_unique<InFlight>();
}

void S3Parts::send(S3PartPayload& payload, int most_in_flight, const WaitCallback& on_wait) {
  if (!has_begun()) begin(on_wait);
  wait_until_below(std::min(most_in_flight, kMostInFlight), on_wait);
  Part& part = idle_part();
  std::swap(part.payload, payload);
  part.number = sent_.size();
  S3Call& call = part.call;
  call = object_.request("PUT");
  call.query = message("partNumber=", part.number + 1, "&", query_of_upload(id_));
  if (object_.options().checksums) {
    call.headers.push_back({"x-amz-checksum-crc32c", crc32c_in_base64(part.payload.crc32c)});
  }
  call.http.payload = part.payload.data;
  call.http.inbox = &in_flight_->inbox;
  call.http.owner = &part;
  sent_.push_back({"", part.payload.crc32c, std::ssize(part.payload.data)});
  part.is_waiting = true;
  object_.client().begin(call);
  part.is_waiting = false;
  part.is_sent = true;
}

S3Parts::Part& S3Parts::idle_part() {
  auto& parts = in_flight_->parts;
  const auto idle = std::ranges::find_if(parts, [](const auto& part) { return part->is_idle(); });
  if (idle != parts.end()) return **idle;
  return *parts.emplace_back(std::make_unique<Part>());
}

void S3Parts::wait_until_below(int in_flight, const WaitCallback& on_wait) {
  collect();
  while (in_flight_->count() >= in_flight && in_flight_->count() > 0) {
    auto next_due = Clock::now() + kWaitSlice;
    for (const auto& part : in_flight_->parts) {
      if (part->is_waiting) next_due = std::min(next_due, part->call.not_before);
    }
    const auto left = std::chrono::ceil<milliseconds>(next_due - Clock::now());
    in_flight_->inbox.wait(std::max(left, milliseconds(0)));
    if (on_wait) on_wait();
    collect();
  }
}

void S3Parts::collect() {
  std::array<Part*, kMostInFlight> back{};  // all are ours again before one is judged
  size_t count = 0;
  for (HttpRequest* one = in_flight_->inbox.take(); one != nullptr; one = one->next) {
    Part& part = *static_cast<Part*>(one->owner);
    part.is_sent = false;
    part.is_waiting = true;
    back[count++] = &part;
  }
  for (Part* part : std::span(back).first(count)) judge(*part);
  for (const auto& part : in_flight_->parts) {
    if (!part->is_waiting || Clock::now() < part->call.not_before) continue;
    object_.client().submit(part->call);
    part->is_waiting = false;
    part->is_sent = true;
  }
}

void S3Parts::judge(Part& part) {
  S3Call& call = part.call;
  if (object_.client().judge(call) == S3Client::Next::again) return;
  if (call.error) {
    const Error error = object_.of_write(call, *call.error);
    throw Error(error.kind(), message("part ", part.number + 1, " of ", error.what()));
  }
  object_.check_reply(call, part.payload.crc32c);
  sent_[part.number].etag = call.http.head.etag();
  end(part);
}

void S3Parts::end(Part& part) {
  part.is_waiting = part.is_sent = false;
  if (part.payload.owner != nullptr) returned_.push_back(std::move(part.payload.owner));
}

uint32_t S3Parts::complete(const WaitCallback& on_wait) {
  wait_until_below(1, on_wait);
  uint32_t crc32c = 0;
  int64_t size_bytes = 0;
  for (const Sent& part : sent_) {
    crc32c = crc32c_of_both(crc32c, part.crc32c, part.bytes);
    size_bytes += part.bytes;
  }
  const std::string parts = list();
  Doubt doubt = Doubt::none;
  is_completing_ = true;
  milliseconds backoff = kFirstCompletionBackoff;
  for (int attempt = 1;; ++attempt, backoff *= 4) {
    bool may_pass = false;
    const std::optional<Error> error = try_to_complete(parts, size_bytes, doubt, may_pass, on_wait);
    if (!error) break;
    if (!may_pass || attempt == kCompletions) throw Error(*error);
    for (const auto due = Clock::now() + backoff; Clock::now() < due;) {
      in_flight_->inbox.wait(std::min(backoff, kWaitSlice));
      if (on_wait) on_wait();
    }
  }
  return crc32c;
}

std::string S3Parts::list() const {
  std::string xml = "<CompleteMultipartUpload>";
  for (size_t number = 0; number < sent_.size(); ++number) {
    const Sent& part = sent_[number];
    append(xml, message("<Part><PartNumber>", number + 1, "</PartNumber><ETag>&quot;",
                        in_xml(part.etag), "&quot;</ETag>"));
    if (object_.options().checksums) {
      append(xml, message("<ChecksumCRC32C>", crc32c_in_base64(part.crc32c), "</ChecksumCRC32C>"));
    }
    xml += "</Part>";
  }
  return xml + "</CompleteMultipartUpload>";
}

std::optional<Error> S3Parts::try_to_complete(const std::string& list, int64_t size_bytes,
                                              Doubt& doubt, bool& may_pass,
                                              const WaitCallback& on_wait) const {
  S3Call call = object_.request("POST");
  call.query = query_of_upload(id_);
  call.headers.push_back({"content-type", "application/xml"});
  object_.add_condition(call);
  call.http.payload = std::as_bytes(std::span(list));
  call.http.patience = kCompletionPatience;
  std::optional<Error> error = object_.send(call, on_wait);
  doubt = std::max(doubt, call.doubt);  // of attempts that failed, whatever the last one says
  if (!error) {
    std::string etag;
    error = read_completion(call, etag, doubt, may_pass);
    if (!error) return look(size_bytes, etag, on_wait);
  } else {
    // An upload that is there no more was completed, or will be, where an attempt before asked so.
    if (call.http.head.status() == 404 && doubt != Doubt::none) doubt = Doubt::open;
    error = object_.of_write(call, *error);
  }
  return object_.resolve(doubt, size_bytes, *error, on_wait) ? std::nullopt : error;
}

// A reply of 200 may say that it failed all the same.
std::optional<Error> S3Parts::read_completion(const S3Call& call, std::string& etag, Doubt& doubt,
                                              bool& may_pass) const {
  std::string problem;
  try {
    std::optional<S3Error> failed;
    etag = parse_completed_upload(call.http.text, failed);
    if (!failed) return std::nullopt;
    may_pass = true;
    doubt = std::max(doubt, Doubt::ended);
    problem =
        message("the server cannot complete the upload:", text_of(*failed, *call.credentials));
  } catch (const Error& error) {
    doubt = Doubt::open;
    problem = message("the reply to the upload's completion cannot be used: ", error.what());
  }
  return Error(ErrorKind::write, message(object_.path(), ": ", problem));
}

// The server says that it is complete.
std::optional<Error> S3Parts::look(int64_t size_bytes, std::string_view etag,
                                   const WaitCallback& on_wait) const {
  std::string problem = "what is there is another object";
  try {
    if (object_.is_in_place(size_bytes, etag, on_wait)) return std::nullopt;
  } catch (const Error& error) {
    // Who may write, and not read, has the server's word.
    if (error.kind() == ErrorKind::access) return std::nullopt;
    problem = error.what();
  }
  return Error(ErrorKind::write,
               message(object_.path(), ": the upload was completed, but ", problem));
}

std::string S3Parts::abandon() noexcept {
  take_back();
  return has_begun() ? abort() : lost_upload_;
}

// Nothing is sent from the memory of others any more.
void S3Parts::take_back() noexcept {
  if (in_flight_ == nullptr) return;
  auto& [inbox, parts] = *in_flight_;
  const auto any_is_sent = [&parts = parts] {
    return std::ranges::any_of(parts, [](const auto& part) { return part->is_sent; });
  };
  for (const auto& part : parts) {
    if (part->is_sent) object_.client().cancel(part->call);
  }
  const auto deadline = Clock::now() + kAbandonTimeout;
  while (any_is_sent() && Clock::now() < deadline) {
    for (HttpRequest* one = inbox.take(); one != nullptr; one = one->next) {
      static_cast<Part*>(one->owner)->is_sent = false;
    }
    if (any_is_sent()) inbox.wait(kWaitSlice);
  }
  if (any_is_sent()) {  // with what was lent
    never_destroy(std::move(in_flight_));
    return;
  }
  for (const auto& part : parts) end(*part);
  in_flight_.reset();
}

std::string S3Parts::abort() const noexcept {
  try {
    const auto deadline = Clock::now() + kAbortTimeout;
    const auto on_wait = [&] {
      if (Clock::now() < deadline) return;
      throw Error(ErrorKind::write_timeout, "the server did not answer in time");
    };
    try {
      abort_upload(object_.client(), object_.name(), id_, on_wait);
      return lost_upload_;
    } catch (const Error& error) {
      return message("the server may keep parts of it, which cost money: the upload ", shown_id_,
                     " could not be aborted (", error.what(), "); ",
                     how_to_find_upload(object_.path()));
    }
  } catch (...) {
    return "";  // without memory there is no text either
  }
}

}  // namespace s3io
