#include "io/write_queue.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "base/align.h"
#include "base/counter.h"
#include "base/error.h"

namespace s3io {
void OutputFile::refuse_direct() {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0) ::fcntl(fd, F_SETFL, flags & ~O_DIRECT);  // if it fails, so does the next write
  alignment = memory_alignment = 1;
}

WriteQueue::WriteQueue(std::unique_ptr<IoEngine> engine, WriteCounters* counters)
    : engine_(std::move(engine)),
      counters_(counters),
      blocks_(static_cast<size_t>(engine_->depth())),
      completed_(blocks_.size()) {
  free_.reserve(blocks_.size());
  for (Block& block : blocks_) free_.push_back(&block);
}

void WriteQueue::push(OutputFile& file, int64_t offset, std::span<const std::byte> data, int tag) {
  Block& block = *free_.back();
  free_.pop_back();
  block.operation = IoOperation::write;
  block.fd = file.fd;
  block.data = const_cast<std::byte*>(data.data());  // a write does not change it
  block.offset = offset;
  block.length = static_cast<uint32_t>(data.size());
  block.file = &file;
  block.end = offset + static_cast<int64_t>(data.size());
  block.tag = tag;
  block.attempts = 0;
  IoRequest* request = &block;
  add(counters_->requests, 1);
  engine_->submit({&request, 1});
  ++in_flight_;
}

int WriteQueue::collect(int wanted, milliseconds timeout) {
  const int count = engine_->wait(completed_, wanted, timeout);
  completions_ += count;
  return count;
}

void WriteQueue::run(std::vector<int>& finished, milliseconds timeout) {
  if (in_flight_ == 0) return;
  const int count = collect(1, timeout);
  bool resubmitted = false;
  for (int index = 0; index < count; ++index) {
    Block& block = *static_cast<Block*>(completed_[static_cast<size_t>(index)]);
    if (is_over(block)) {
      if (block.tag != kNoTag) finished.push_back(block.tag);
      free_.push_back(&block);
      --in_flight_;
      continue;
    }
    IoRequest* request = &block;
    add(counters_->requests, 1);
    engine_->submit({&request, 1});
    resubmitted = true;
  }
  if (resubmitted && timeout <= milliseconds(0)) run(finished, milliseconds(1));
}

bool WriteQueue::is_over(Block& block) {
  OutputFile& file = *block.file;
  if (block.result < 0) {
    const int error_number = static_cast<int>(-block.result);
    if (error_number == EINTR || error_number == EAGAIN) {
      add(counters_->retries, 1);
      return !may_retry(block, error_number);
    }
    if (error_number == EINVAL && file.is_direct() && file.mode == DirectMode::automatic) {
      file.refuse_direct();
      add(counters_->direct_refused, 1);
      return false;
    }
    fail(block, error_number);
    return true;
  }
  add(file.is_direct() ? counters_->direct_bytes : counters_->buffered_bytes, block.result);
  const int64_t reached = block.offset + block.result;
  if (reached >= block.end) return true;

  add(counters_->short_writes, 1);
  const int64_t progress = align_down(block.result, file.alignment);
  if (progress == 0) return !may_retry(block, EIO);
  block.attempts = 0;
  block.offset += progress;
  block.data += progress;
  block.length = static_cast<uint32_t>(block.end - block.offset);
  return false;
}

bool WriteQueue::may_retry(Block& block, int error_number) {
  if (++block.attempts < kMaxAttempts) return true;
  fail(block, error_number);
  return false;
}

void WriteQueue::fail(const Block& block, int error_number) {
  if (!failure_) failure_ = {error_number, block.offset};
}

bool WriteQueue::abandon(milliseconds timeout) noexcept {
  const Clock::time_point deadline = Clock::now() + timeout;
  try {
    while (in_flight_ > 0 && Clock::now() < deadline) {
      const int count = collect(in_flight_, kWaitSlice);
      for (int index = 0; index < count; ++index) {
        free_.push_back(static_cast<Block*>(completed_[static_cast<size_t>(index)]));
      }
      in_flight_ -= count;
    }
  } catch (const Error&) {  // nobody knows what is still in flight
    return false;
  }
  failure_.reset();
  return in_flight_ == 0;
}

}  // namespace s3io
