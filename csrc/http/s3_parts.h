// An upload of one object of S3 in parts (CreateMultipartUpload), several of which are in flight.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "http/s3_new_object.h"

namespace s3io {

// Bytes that stay where they are until the part is there, and who keeps them there: `memory`, which
// is used again, or `owner`.
struct S3PartPayload {
  std::span<const std::byte> data;
  uint32_t crc32c = 0;
  std::shared_ptr<const void> owner = nullptr;
  std::unique_ptr<std::byte[]> memory = nullptr;
  size_t memory_bytes = 0;
};

// One thread at a time. It is left alone in a forked child, whose parent's it is.
class S3Parts {
 public:
  static constexpr int64_t kMostParts = 10'000;  // of one upload, says S3
  static constexpr int kMostInFlight = 256;

  explicit S3Parts(const S3NewObject& object);
  S3Parts(const S3Parts&) = delete;
  S3Parts& operator=(const S3Parts&) = delete;
  ~S3Parts();  // abandon() was called, or it is complete, or this is a forked child

  bool has_begun() const { return !id_.empty(); }
  int64_t count() const { return std::ssize(sent_); }
  // Sends the next part, once less than `most_in_flight` are on their way; begins the upload. The
  // payload then has the memory of a part that was sent, if any. Throws of parts before, too.
  void send(S3PartPayload& payload, int most_in_flight, const WaitCallback& on_wait);
  // Waits for all parts, and makes the object of them. Gives its CRC-32C. An error says whether the
  // object may be in place: by its text, and by is_undone.
  uint32_t complete(const WaitCallback& on_wait);
  // Whether the server was asked to make the object.
  bool is_completing() const { return is_completing_; }
  // Aborts it. Gives what the server may yet have, and what to do; empty: it has nothing.
  std::string abandon() noexcept;
  // An upload that the server may have begun beside, and what to do; empty: there is none.
  const std::string& lost_upload() const { return lost_upload_; }
  // The owners of payloads that are needed no more.
  std::vector<std::shared_ptr<const void>> take_returned() { return std::exchange(returned_, {}); }

 private:
  // What the transport may have in its hands.
  struct Part;
  struct InFlight;
  struct Sent {
    std::string etag;
    uint32_t crc32c = 0;
    int64_t bytes = 0;
  };

  void begin(const WaitCallback& on_wait);
  Part& idle_part();
  void wait_until_below(int in_flight, const WaitCallback& on_wait);
  void collect();
  void judge(Part& part);
  void end(Part& part);
  std::string list() const;
  // `doubt`: of all attempts so far.
  std::optional<Error> try_to_complete(const std::string& list, int64_t size_bytes, Doubt& doubt,
                                       bool& may_pass, const WaitCallback& on_wait) const;
  std::optional<Error> read_completion(const S3Call& call, std::string& etag, Doubt& doubt,
                                       bool& may_pass) const;
  std::optional<Error> look(int64_t size_bytes, std::string_view etag,
                            const WaitCallback& on_wait) const;
  void take_back() noexcept;
  std::string abort() const noexcept;

  const S3NewObject& object_;
  std::string id_;  // empty: nothing was sent yet
  std::string shown_id_;
  std::string lost_upload_;
  bool is_completing_ = false;
  std::vector<Sent> sent_;  // by the part's number, from 0 on
  std::unique_ptr<InFlight> in_flight_;
  std::vector<std::shared_ptr<const void>> returned_;
};

}  // namespace s3io
