// The RangeReader of S3: ranges in parts, each part a GET, many in flight, straight to where they
// belong. A range of no bytes is a HEAD, which tells whether the object is the same.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/fork_owned.h"
#include "http/s3_client.h"
#include "io/range_reader.h"

namespace s3io {

// A version of an object of S3. Any thread.
class S3Object final : public Object {
 public:
  // Without an ETag the first reply says it, which must have the version's number.
  S3Object(std::string path, const ObjectVersion& version, std::string etag,
           std::string crc32c = {});

  const std::string& path() const override { return path_; }
  int64_t size() const override { return size_bytes_; }
  int64_t block_bytes() const override { return 1; }
  // Every reply was compared, before a byte of it was stored.
  void check_unchanged() const override {}
  bool is_checked_by_reads() const override { return true; }
  void keep_open() override {}

  const S3Path& name() const { return name_; }
  int64_t etag_number() const { return etag_number_; }
  std::string_view etag() const;  // empty: not known yet. It stays where it is.
  void learn_etag(const std::string& etag);
  // Of all its bytes, in base64, as the server keeps it; empty: it was not asked, or has none.
  const std::string& crc32c() const { return crc32c_; }

 private:
  const std::string path_;
  const S3Path name_;
  const int64_t size_bytes_;
  const int64_t etag_number_;
  const std::string crc32c_;
  std::mutex mutex_;  // for who writes etag_
  std::string etag_;  // once it is known
  std::atomic<bool> has_etag_;
};

// In a forked child it does nothing: the locks and the descriptor of its inbox are its parent's,
// too.
class S3RangeReader final : public RangeReader {
 public:
  // Parts of at most `part_bytes`, `depth` of them in flight.
  S3RangeReader(std::shared_ptr<S3Client> client, int depth, int64_t part_bytes,
                ReadCounters& counters);
  ~S3RangeReader() override;

  // The objects of ranges are S3Objects.
  void push(RangeRead& range) override;
  // Throws what the source of credentials throws, if it is no Error; Error(config) in a forked
  // child.
  void run(std::vector<RangeRead*>& finished, milliseconds timeout) override;
  bool has_backlog() const override { return first_ != nullptr && idle_.empty(); }
  bool idle() const override { return first_ == nullptr && idle_.size() == parts_.size(); }
  int64_t completions() const override { return completions_ + inbox_->bytes; }
  bool abandon(milliseconds timeout) noexcept override;
  bool register_buffer(int, std::span<std::byte>) override { return false; }
  std::string_view name() const override { return "s3"; }
  int ready_fd() override { return inbox_->fd(); }

 private:
  struct Part {
    S3Call call;
    RangeRead* range = nullptr;
    bool is_waiting = false;  // for its next attempt
  };

  void begin_parts(std::vector<RangeRead*>& finished);
  void begin(Part& part, RangeRead& range);
  template <typename Act>
  bool try_to(Part& part, const Act& act);
  void take_back(std::vector<RangeRead*>& finished);
  Clock::time_point repeat_what_is_due(std::vector<RangeRead*>& finished);
  void end(Part& part, std::vector<RangeRead*>& finished);

  const HomeProcess home_ = {};
  const std::shared_ptr<S3Client> client_;
  const int64_t part_bytes_;
  ReadCounters& counters_;
  // Left behind where a request does not come back.
  std::unique_ptr<HttpInbox> inbox_;
  std::vector<std::unique_ptr<Part>> parts_;
  std::vector<Part*> idle_;
  RangeRead* first_ = nullptr;  // those of which a part was not begun
  RangeRead* last_ = nullptr;
  int64_t completions_ = 0;
  std::exception_ptr interruption_;  // what to throw when all parts are in order
};

}  // namespace s3io
