#include "http/s3_upload.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/crc32c.h"

namespace s3io {
namespace {

constexpr int64_t kPartsOfOneSize = S3Parts::kMostParts / 4;
constexpr int64_t kMostUploadPartBytes = int64_t{5} << 30;
constexpr int64_t kMostObjectBytes = int64_t{50} << 40;
constexpr size_t kCopyBytesAtOnce = 16 << 10;  // summed while they are in the first-level cache
constexpr std::array<std::byte, 4096> kZeroBytes{};

S3UploadOptions checked(S3UploadOptions options) {
  const int64_t size_bytes = options.size_bytes.value_or(0);
  if (options.part_bytes < 1 || options.part_bytes > kMostUploadPartBytes ||
      options.parts_in_flight < 1 || options.parts_in_flight > S3Parts::kMostInFlight) {
    throw Error(ErrorKind::config,
                message("part_bytes must be between 1 and ", kMostUploadPartBytes,
                        ", and parts in flight between 1 and ", S3Parts::kMostInFlight));
  }
  if (size_bytes < 0 || size_bytes > kMostObjectBytes) {
    throw Error(ErrorKind::config, message("size_bytes must be between 0 and ", kMostObjectBytes,
                                           ", not ", size_bytes));
  }
  // All parts have one length then, which some servers ask for.
  const int64_t least = (size_bytes + S3Parts::kMostParts - 1) / S3Parts::kMostParts;
  options.part_bytes = std::max(options.part_bytes, least);
  return options;
}

}  // namespace

S3Upload::S3Upload(std::shared_ptr<S3Client> client, std::string path, S3UploadOptions options,
                   const WaitCallback& on_wait)
    : object_(std::move(client), std::move(path), options.object),
      options_(checked(std::move(options))),
      parts_(object_) {
  object_.check_absent(on_wait);
}

S3Upload::~S3Upload() {
  if (home_.is_here()) cancel();
}

template <typename Work>
void S3Upload::guarded(const WaitCallback& on_wait, Work work) {
  if (!home_.is_here()) {
    throw Error(ErrorKind::config, message(path(), ": this writer belongs to the parent process"));
  }
  if (state_ != State::open) {
    throw Error(ErrorKind::config,
                message(path(), ": this writer is ",
                        state_ == State::finished ? "finished" : "cancelled, or failed before"));
  }
  on_wait_ = &on_wait;
  try {
    work();
  } catch (const Error& error) {
    cancel();
    // Parts are no object.
    const bool is_undone = error.is_undone() || !(is_putting_ || parts_.is_completing());
    const std::string_view separator = left_behind_.empty() ? "" : "; ";
    throw Error(error.kind(), message(error.what(), separator, left_behind_), is_undone);
  } catch (...) {
    cancel();
    throw;
  }
}

void S3Upload::write(std::span<const std::byte> data, const WaitCallback& on_wait) {
  guarded(on_wait, [&] { stage(data); });
}

void S3Upload::lend(std::span<const std::byte> data, std::shared_ptr<const void> owner,
                    const WaitCallback& on_wait) {
  returned_.push_back(owner);  // this one; parts in flight have their own
  guarded(on_wait, [&] {
    while (!data.empty()) {
      // What is no longer than a part may be all there is: that takes one request.
      const bool is_part = stage_.data.empty() && std::ssize(data) >= part_bytes() &&
                           (parts_.has_begun() || std::ssize(data) > part_bytes());
      if (is_part) {
        send_lent(data, owner);
      } else {  // up to the end of the part that is being filled
        const size_t room = static_cast<size_t>(part_bytes()) - stage_.data.size();
        const auto some = data.first(std::min(room, data.size()));
        stage(some);
        data = data.subspan(some.size());
        if (!data.empty()) flush_stage();
      }
    }
  });
}

std::vector<std::shared_ptr<const void>> S3Upload::take_returned() {
  for (auto& owner : parts_.take_returned()) returned_.push_back(std::move(owner));
  return std::exchange(returned_, {});
}

void S3Upload::write_rows(std::span<const std::byte> rows, int64_t row_bytes, int64_t stride_bytes,
                          const WaitCallback& on_wait) {
  if (row_bytes < 1 || stride_bytes < row_bytes || std::ssize(rows) % row_bytes != 0) {
    throw Error(ErrorKind::config, message(path(), ": ", rows.size(), " bytes are no rows of ",
                                           row_bytes, " bytes every ", stride_bytes));
  }
  guarded(on_wait, [&] {
    const auto row = static_cast<size_t>(row_bytes);
    for (; !rows.empty(); rows = rows.subspan(row)) {
      stage(rows.first(row));
      stage_zeros(stride_bytes - row_bytes);
    }
  });
}

// Without a known size they grow, so that 10,000 are enough for long.
int64_t S3Upload::part_bytes() const {
  return options_.size_bytes
             ? options_.part_bytes
             : options_.part_bytes << std::min(parts_.count() / kPartsOfOneSize, int64_t{3});
}

void S3Upload::send_lent(std::span<const std::byte>& data,
                         const std::shared_ptr<const void>& owner) {
  const auto bytes = data.first(static_cast<size_t>(part_bytes()));
  S3PartPayload payload{.data = bytes, .crc32c = crc32c(0, bytes), .owner = owner};
  send(payload);
  size_ += std::ssize(bytes);
  data = data.subspan(bytes.size());
  // Memory of a part that was sent before is of use.
  if (stage_.memory == nullptr) {
    stage_.memory = std::move(payload.memory);
    stage_.memory_bytes = payload.memory_bytes;
  }
}

void S3Upload::stage(std::span<const std::byte> data) {
  while (!data.empty()) {
    const auto most = static_cast<size_t>(part_bytes());
    if (stage_.data.size() == most) {
      flush_stage();
      continue;
    }
    if (stage_.memory == nullptr || stage_.memory_bytes < most) {
      stage_.memory = std::make_unique_for_overwrite<std::byte[]>(most);
      stage_.memory_bytes = most;
    }
    const size_t staged = stage_.data.size();
    const auto piece = data.first(std::min({data.size(), most - staged, kCopyBytesAtOnce}));
    stage_.crc32c = crc32c(stage_.crc32c, piece);
    std::memcpy(stage_.memory.get() + staged, piece.data(), piece.size());
    stage_.data = {stage_.memory.get(), staged + piece.size()};
    size_ += std::ssize(piece);
    data = data.subspan(piece.size());
  }
}

void S3Upload::stage_zeros(int64_t count) {
  while (count > 0) {
    const auto most = std::min<int64_t>(count, std::ssize(kZeroBytes));
    stage(std::span(kZeroBytes).first(static_cast<size_t>(most)));
    count -= most;
  }
}

void S3Upload::flush_stage() {
  send(stage_);
  stage_.data = {};
  stage_.crc32c = 0;
}

void S3Upload::send(S3PartPayload& payload) {
  if (parts_.count() == S3Parts::kMostParts) {
    throw Error(ErrorKind::config,
                message(path(), ": has more than ", S3Parts::kMostParts, " parts of ",
                        options_.part_bytes, " bytes; ",
                        options_.size_bytes ? "it is longer than size_bytes="
                                            : "give size_bytes=, or raise part_bytes"));
  }
  const int64_t most_bytes = options_.part_bytes * options_.parts_in_flight;
  const int64_t most = std::max<int64_t>(1, most_bytes / part_bytes());
  parts_.send(payload, static_cast<int>(most), *on_wait_);
}

WrittenObject S3Upload::finish(const WaitCallback& on_wait) {
  WrittenObject written;
  guarded(on_wait, [&] {
    if (options_.size_bytes && *options_.size_bytes != size_) {
      throw Error(ErrorKind::config, message(path(), ": has ", size_,
                                             " bytes, not size_bytes=", *options_.size_bytes));
    }
    if (parts_.has_begun()) {
      if (!stage_.data.empty()) flush_stage();
      written = {.size_bytes = size_,
                 .crc32c = parts_.complete(on_wait),
                 .left_behind = parts_.lost_upload()};
    } else {
      is_putting_ = true;
      written = object_.put(stage_.data, on_wait);
    }
    state_ = State::finished;
    stage_ = {};
  });
  return written;
}

void S3Upload::cancel() noexcept {
  if (state_ != State::open || !home_.is_here()) return;
  state_ = State::cancelled;
  left_behind_ = parts_.abandon();
  stage_ = {};
}

WrittenObject put_object(std::shared_ptr<S3Client> client, const std::string& path,
                         std::span<const std::byte> data, S3UploadOptions options,
                         const WaitCallback& on_wait) {
  if (std::ssize(data) <= options.part_bytes) {
    const S3NewObject object(std::move(client), path, std::move(options.object));
    object.check_absent(on_wait);
    return object.put(data, on_wait);
  }
  options.size_bytes = std::ssize(data);
  S3Upload upload(std::move(client), path, std::move(options), on_wait);
  upload.lend(data, nullptr, on_wait);
  return upload.finish(on_wait);
}

}  // namespace s3io
