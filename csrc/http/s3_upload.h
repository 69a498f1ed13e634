// Writes one object of S3, whole or not at all: by one request where it is short, else in parts.
//
// What is lent goes out from where it lies, as far as it fills parts of its own; everything else is
// copied once, into a buffer of the writer's. Of these there are at most as many bytes as
// `parts_in_flight` + 1 parts of `part_bytes` have (or one part, where a long object has longer
// ones).
//
// An upload that fails is aborted: the server then has no part of it any more. Where it cannot be
// reached for that, the error names the upload, and how to abort it. What the server did not say
// (the connection broke while it completed the upload) is found out: S3NewObject.
//
// One thread at a time. In a forked child the writer does nothing: it is the parent's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fork_owned.h"
#include "http/s3_new_object.h"
#include "http/s3_parts.h"
#include "store/byte_writer.h"

namespace s3io {

struct S3UploadOptions {
  S3WriteOptions object = {};
  // Of each part; the server takes 5 MiB at least, but of the last one. What has more than 10,000
  // parts has longer ones.
  int64_t part_bytes = int64_t{8} << 20;
  int parts_in_flight = 8;
  std::optional<int64_t> size_bytes = {};  // of the object, where that is known
};

class S3Upload final : public ByteWriter {
 public:
  // Throws Error(config | exists | ...).
  S3Upload(std::shared_ptr<S3Client> client, std::string path, S3UploadOptions options,
           const WaitCallback& on_wait = {});
  ~S3Upload() override;

  const std::string& path() const override { return object_.path(); }
  int64_t size() const override { return size_; }
  bool is_open() const override { return state_ == State::open; }

  void write(std::span<const std::byte> data, const WaitCallback& on_wait) override;
  void lend(std::span<const std::byte> data, std::shared_ptr<const void> owner,
            const WaitCallback& on_wait) override;
  std::vector<std::shared_ptr<const void>> take_returned() override;
  void write_rows(std::span<const std::byte> rows, int64_t row_bytes, int64_t stride_bytes,
                  const WaitCallback& on_wait) override;
  WrittenObject finish(const WaitCallback& on_wait) override;
  void cancel() noexcept override;
  std::string left_behind() const override { return left_behind_; }

 private:
  enum class State : uint8_t { open, finished, cancelled };

  template <typename Work>
  void guarded(const WaitCallback& on_wait, Work work);
  void send_lent(std::span<const std::byte>& data, const std::shared_ptr<const void>& owner);
  void stage(std::span<const std::byte> data);
  void stage_zeros(int64_t count);
  void flush_stage();
  void send(S3PartPayload& payload);
  int64_t part_bytes() const;  // of the part that is next

  const S3NewObject object_;
  const S3UploadOptions options_;
  const HomeProcess home_ = {};
  const WaitCallback* on_wait_ = nullptr;  // of the call that is running
  State state_ = State::open;
  bool is_putting_ = false;  // the whole of it by one request
  std::string left_behind_;
  int64_t size_ = 0;  // bytes that the caller gave
  S3Parts parts_;
  S3PartPayload stage_;  // the part that is being filled: `data` is what it has
  std::vector<std::shared_ptr<const void>> returned_;
};

// The whole of an object, from where it lies.
WrittenObject put_object(std::shared_ptr<S3Client> client, const std::string& path,
                         std::span<const std::byte> data, S3UploadOptions options,
                         const WaitCallback& on_wait = {});

}  // namespace s3io
