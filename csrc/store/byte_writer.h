// The seam between those who write objects and the places where these come to lie. ObjectWriter is
// one: a file. S3Upload is another: an object of S3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/store.h"

namespace s3io {

struct WrittenObject {
  int64_t size_bytes = 0;
  std::optional<uint32_t> crc32c;  // of the content; none where checksums are off
  bool checksum_kept = false;      // with the object, for who reads it
  std::string left_behind = {};    // what may lie beside it, and what to do; empty: nothing
};

// Writes one object from its begin to its end, whole or not at all. One thread at a time.
//
// Whatever fails cancels it: then the old object stays, or none.
class ByteWriter {
 public:
  ByteWriter() = default;
  ByteWriter(const ByteWriter&) = delete;
  ByteWriter& operator=(const ByteWriter&) = delete;
  virtual ~ByteWriter() = default;  // cancels

  virtual const std::string& path() const = 0;
  virtual int64_t size() const = 0;  // bytes so far
  virtual bool is_open() const = 0;

  // Appends bytes; they may change when the call returns.
  virtual void write(std::span<const std::byte> data, const WaitCallback& on_wait) = 0;
  // Appends bytes that stay as they are for as long as `owner` lives. A later call lets go of it:
  // see take_returned.
  virtual void lend(std::span<const std::byte> data, std::shared_ptr<const void> owner,
                    const WaitCallback& on_wait) = 0;
  // The owners of what was lent and is needed no more: written, copied, or cancelled.
  virtual std::vector<std::shared_ptr<const void>> take_returned() = 0;
  // Appends rows of `row_bytes` that lie one after the other, each followed by zeros up to
  // `stride_bytes`. Throws Error(config), and goes on, where the sizes do not fit each other.
  virtual void write_rows(std::span<const std::byte> rows, int64_t row_bytes, int64_t stride_bytes,
                          const WaitCallback& on_wait) = 0;
  // Completes the object. Once it returns, the object is in its place. An Error that is_undone says
  // that it is not, nor will be; so does one of any other call.
  virtual WrittenObject finish(const WaitCallback& on_wait) = 0;
  // Removes what was written. Does nothing after `finish`.
  virtual void cancel() noexcept = 0;
  // What could not be removed, and what to do; empty: nothing. Errors say it, too.
  virtual std::string left_behind() const { return {}; }
};

}  // namespace s3io
