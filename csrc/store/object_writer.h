// Writes one file, whole or not at all: under a temporary name, then synced and renamed. Readers
// see the old file or the new one; an interrupted or failed write leaves the old one, or none.
// Through a symbolic link, what it leads to is written, and the link stays; with Links::replace the
// link itself is replaced. A file that is replaced leaves its permissions to the new one.
//
// Several writes of up to 1 MiB, or one alignment where that is more, are in flight. What is
// aligned in address, length and position goes to the device from where it lies, if it is lent or
// long; anything else is copied once, into a pooled buffer. The last block is padded and the file
// then cut to its length.
//
// Worked example, alignment 512, chunks of 700 and 2000 bytes: both are copied into one block,
// [0, 2700). `finish` pads it to 3072 bytes, writes those, and cuts the file to 2700.
//
// Every wait ends: of the writes in flight one must come back, and each other step (to create,
// reserve, sync, rename) be over, within WriteEngine::Options::timeout_s. A step that is not goes
// on in a thread of its own, and no other one follows; when it comes back that thread removes the
// temporary file.
//
// One thread at a time. In a forked child the writer does nothing: it is the parent's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fork_owned.h"
#include "memory/aligned_buf.h"
#include "store/byte_writer.h"
#include "store/temporary_file.h"
#include "store/write_engine.h"

namespace s3io {

// What becomes of a symbolic link that has the name of the file.
enum class Links : uint8_t { follow, replace };

class ObjectWriter final : public ByteWriter {
 public:
  // Creates the temporary file. `size_bytes`, where known, reserves the space at once. With
  // `if_absent` a file of this name, now or at the end, is an Error(exists). Throws
  // Error(no_space | not_found | access | direct_io | ...) naming `path`, or what `on_wait` throws.
  ObjectWriter(std::string path, std::optional<int64_t> size_bytes,
               std::shared_ptr<WriteEngine> engine, const WaitCallback& on_wait = {},
               Links links = Links::follow, bool if_absent = false);
  ~ObjectWriter() override;

  const std::string& path() const override { return path_; }
  int64_t size() const override { return size_; }
  bool is_open() const override { return state_ == State::open; }

  void write(std::span<const std::byte> data, const WaitCallback& on_wait) override;
  // What is aligned, and not little, is not copied, and no write is waited for unless all that may
  // be in flight are.
  void lend(std::span<const std::byte> data, std::shared_ptr<const void> owner,
            const WaitCallback& on_wait) override;
  std::vector<std::shared_ptr<const void>> take_returned() override;
  void write_rows(std::span<const std::byte> rows, int64_t row_bytes, int64_t stride_bytes,
                  const WaitCallback& on_wait) override;
  // Gives the file its name, too. An error says so where the new file is in place, or where that is
  // unknown because the rename did not come back; what `on_wait` throws can say so only if it is an
  // Error, which does not come at all where the file is complete all the same.
  WrittenObject finish(const WaitCallback& on_wait) override;
  void cancel() noexcept override;

 private:
  enum class State : uint8_t { open, finished, cancelled };
  struct Loan {
    std::shared_ptr<const void> owner;
    int uses = 0;  // writes in flight, and the call that lends it
  };

  template <typename Work>
  void guarded(Work work);
  void open(Links links);
  // `loan`: what is aligned is not copied, and counts as a use of it; none: kNoLoan.
  void append(std::span<const std::byte> data, size_t loan);
  bool can_pass(std::span<const std::byte> data) const;
  void pass(std::span<const std::byte> data, size_t loan);
  void end_use(size_t loan);
  size_t stage(std::span<const std::byte> data);
  void stage_zeros(int64_t count);
  void take_block();
  void flush_block();
  void push(std::span<const std::byte> data, int tag);
  void wait_until_below(int in_flight);
  void collect(milliseconds timeout);
  void check_failure();
  void reserve(int64_t end);
  void add_checksum(std::span<const std::byte> data);
  void check(int result, const char* action) const;
  void let_go() noexcept;

  const std::string path_;
  const std::optional<int64_t> expected_;
  const bool if_absent_;
  const HomeProcess home_ = {};
  std::shared_ptr<WriteEngine> engine_;
  std::shared_ptr<FileCalls> calls_;
  std::shared_ptr<TemporaryFile> file_;  // shared with calls that do not come back
  std::unique_ptr<WriteQueue> queue_;
  const WaitCallback* on_wait_ = nullptr;  // of the call that is running

  State state_ = State::open;
  bool is_completing_ = false;
  int64_t size_ = 0;      // bytes that the caller gave
  int64_t position_ = 0;  // where the next block begins
  int64_t reserved_ = 0;  // length of the file, as reserved
  bool can_reserve_ = true;
  uint32_t crc_ = 0;

  AlignedBuf buffer_;  // cut into blocks
  int64_t block_bytes_ = 0;
  std::vector<int> free_blocks_;
  int block_ = WriteQueue::kNoTag;  // being filled
  int64_t staged_ = 0;              // bytes in it

  std::unique_ptr<std::vector<Loan>> loans_;
  std::vector<std::shared_ptr<const void>> returned_;
  std::vector<int> finished_;  // tags: of blocks of the buffer, then of loans
};

}  // namespace s3io
