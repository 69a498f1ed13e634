#include "store/object_writer.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/align.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "store/completion.h"
#include "store/timed_steps.h"

namespace s3io {
namespace {

// A shorter chunk that is not lent is copied even where it is aligned: writing from the caller's
// memory means waiting for the device before returning, and then it has nothing to do until the
// next chunk comes.
constexpr size_t kMinPassBytes = WriteEngine::kBlockBytes * WriteEngine::kDepth;
// What is lent in less is gathered to larger writes.
constexpr size_t kMinLentBytes = 64 << 10;
constexpr size_t kLoans = WriteEngine::kDepth + 1;  // those in flight, and of the call that lends
constexpr size_t kNoLoan = kLoans;
constexpr int kFirstLoanTag = 1 << 16;  // beyond those of the buffer's blocks
// What is copied is summed in pieces that stay in the first-level cache in between.
constexpr size_t kCopyBytes = 16 << 10;
constexpr int64_t kReserveBytes = int64_t{64} << 20;

// A multiple of the alignment, as both are powers of two.
int64_t most_block_bytes(int64_t alignment) {
  return std::max(WriteEngine::kBlockBytes, alignment);
}

int64_t lease_bytes(const BufferPool* pool, std::optional<int64_t> expected, int64_t alignment) {
  int64_t bytes = most_block_bytes(alignment) * WriteEngine::kStagedBlocks;
  if (pool != nullptr) bytes = std::min(bytes, align_down(pool->config().buffer_size, alignment));
  if (expected) bytes = std::min(bytes, align_up(*expected, alignment));
  return std::max(bytes, std::max(alignment, kCacheLineBytes));
}

// A rename would put a file in the place of a device or a FIFO.
void refuse_special_file(const std::string& path) {
  try {
    inspect_file(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::not_found) throw;
  }
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

bool is_link(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
}

}  // namespace

ObjectWriter::ObjectWriter(std::string path, std::optional<int64_t> size_bytes,
                           std::shared_ptr<WriteEngine> engine, const WaitCallback& on_wait,
                           Links links, bool if_absent)
    : path_(std::move(path)),
      expected_(size_bytes),
      if_absent_(if_absent),
      engine_(std::move(engine)),
      calls_(std::make_shared<FileCalls>(engine_->options().faults)) {
  guarded([&] {
    on_wait_ = &on_wait;
    open(links);
    // Where one write is all, it reserves enough.
    can_reserve_ = !expected_ || *expected_ > most_block_bytes(file_->output().alignment);
    if (expected_) reserve(*expected_);
    queue_ = engine_->borrow();
    loans_ = std::make_unique<std::vector<Loan>>(kLoans);
  });
}

void ObjectWriter::open(Links links) {
  const auto opened = std::make_shared<std::shared_ptr<TemporaryFile>>();
  TimedSteps::run(path_, engine_->options().timeout_s, *on_wait_,
                  [opened, links, if_absent = if_absent_, path = path_, engine = engine_,
                   calls = calls_](TimedSteps& steps) {
                    const WriteEngine::Options& options = engine->options();
                    steps.begin("the look at what it names (stat)");
                    const bool replaces_link = links == Links::replace && is_link(path);
                    if (!replaces_link) refuse_special_file(path);
                    const std::string target = replaces_link ? path : behind_links(path);
                    if (if_absent && is_there(target)) throw exists_already(path);
                    const auto begin_look = [&steps] {
                      steps.begin("the look for what dead writers left in its folder");
                    };
                    begin_look();
                    engine->tidy(folder_of(target), begin_look);
                    steps.begin("the creation of a temporary file");
                    *opened = std::make_shared<TemporaryFile>(target, options.direct,
                                                              options.min_alignment, calls);
                  });
  file_ = std::move(*opened);
  const BufferPool* pool = engine_->pool();
  if (pool != nullptr && pool->config().alignment < file_->output().alignment) {
    throw Error(ErrorKind::config,
                message(path_, ": direct writes need an alignment of ", file_->output().alignment,
                        "; raise BufferPoolConfig.alignment (now ", pool->config().alignment, ")"));
  }
}

ObjectWriter::~ObjectWriter() {
  if (home_.is_here()) {
    cancel();
    return;
  }
  // A forked child: everything is its parent's, rings and locks above all.
  if (file_ != nullptr) file_->leave();
  never_destroy(std::move(queue_));
  if (buffer_.valid()) buffer_.detach();
}

template <typename Work>
void ObjectWriter::guarded(Work work) {
  if (!home_.is_here()) {
    throw Error(ErrorKind::config, message(path_, ": this writer belongs to the parent process"));
  }
  if (state_ != State::open) {
    throw Error(ErrorKind::config,
                message(path_, ": this writer is ",
                        state_ == State::finished ? "finished" : "cancelled, or failed before"));
  }
  try {
    work();
  } catch (const Error& error) {
    cancel();
    throw Error(error.kind(), error.what(), error.is_undone() || !is_completing_);
  } catch (...) {
    cancel();
    throw;
  }
}

void ObjectWriter::write(std::span<const std::byte> data, const WaitCallback& on_wait) {
  guarded([&] {
    on_wait_ = &on_wait;
    append(data, kNoLoan);
  });
}

void ObjectWriter::lend(std::span<const std::byte> data, std::shared_ptr<const void> owner,
                        const WaitCallback& on_wait) {
  guarded([&] {
    on_wait_ = &on_wait;
    const auto free = std::ranges::find(*loans_, 0, &Loan::uses);
    *free = {.owner = std::move(owner), .uses = 1};
    const auto loan = static_cast<size_t>(free - loans_->begin());
    append(data, loan);
    end_use(loan);
  });
}

void ObjectWriter::end_use(size_t loan) {
  Loan& ended = (*loans_)[loan];
  if (--ended.uses == 0) returned_.push_back(std::move(ended.owner));
}

std::vector<std::shared_ptr<const void>> ObjectWriter::take_returned() {
  if (state_ != State::open && loans_ != nullptr) {
    for (Loan& loan : *loans_) {
      if (loan.owner != nullptr) returned_.push_back(std::move(loan.owner));
    }
  }
  return std::exchange(returned_, {});
}

void ObjectWriter::write_rows(std::span<const std::byte> rows, int64_t row_bytes,
                              int64_t stride_bytes, const WaitCallback& on_wait) {
  if (row_bytes < 1 || stride_bytes < row_bytes || std::ssize(rows) % row_bytes != 0) {
    throw Error(ErrorKind::config, message(path_, ": ", rows.size(), " bytes are no rows of ",
                                           row_bytes, " bytes every ", stride_bytes));
  }
  guarded([&] {
    on_wait_ = &on_wait;
    const auto row = static_cast<size_t>(row_bytes);
    for (; !rows.empty(); rows = rows.subspan(row)) {
      append(rows.first(row), kNoLoan);
      stage_zeros(stride_bytes - row_bytes);
    }
  });
}

void ObjectWriter::append(std::span<const std::byte> data, size_t loan) {
  const bool is_lent = loan != kNoLoan;
  const bool may_pass = data.size() >= (is_lent ? kMinLentBytes : kMinPassBytes) ||
                        expected_ == size_ + static_cast<int64_t>(data.size());
  bool passed = false;
  while (!data.empty()) {
    size_t count = 0;
    if (may_pass && can_pass(data)) {
      const int64_t alignment = file_->output().alignment;
      const int64_t most = std::min(std::ssize(data), most_block_bytes(alignment));
      count = static_cast<size_t>(align_down(most, alignment));
      pass(data.first(count), loan);
      passed = true;
    } else {
      count = stage(data);
    }
    data = data.subspan(count);
  }
  if (passed && !is_lent) wait_until_below(1);  // the device reads from the caller's memory
}

bool ObjectWriter::can_pass(std::span<const std::byte> data) const {
  const OutputFile& output = file_->output();
  return staged_ == 0 && std::ssize(data) >= output.alignment &&
         reinterpret_cast<uintptr_t>(data.data()) % static_cast<size_t>(output.memory_alignment) ==
             0;
}

void ObjectWriter::pass(std::span<const std::byte> data, size_t loan) {
  if (loan != kNoLoan) ++(*loans_)[loan].uses;
  push(data, loan == kNoLoan ? WriteQueue::kNoTag : kFirstLoanTag + static_cast<int>(loan));
  add_checksum(data);
  size_ += static_cast<int64_t>(data.size());
}

size_t ObjectWriter::stage(std::span<const std::byte> data) {
  if (block_ == WriteQueue::kNoTag) take_block();
  const size_t count = std::min(data.size(), static_cast<size_t>(block_bytes_ - staged_));
  std::byte* target = buffer_.data() + block_ * block_bytes_ + staged_;
  for (size_t begin = 0; begin < count; begin += kCopyBytes) {
    const auto piece = data.subspan(begin, std::min(kCopyBytes, count - begin));
    add_checksum(piece);
    std::memcpy(target + begin, piece.data(), piece.size());
  }
  engine_->counters().copied_bytes.fetch_add(static_cast<int64_t>(count));
  size_ += static_cast<int64_t>(count);
  staged_ += static_cast<int64_t>(count);
  if (staged_ == block_bytes_) flush_block();
  return count;
}

void ObjectWriter::stage_zeros(int64_t count) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  while (count > 0) {
    const auto most = std::min<int64_t>(count, std::ssize(kZeros));
    count -= static_cast<int64_t>(stage(std::span(kZeros).first(static_cast<size_t>(most))));
  }
}

void ObjectWriter::take_block() {
  if (!buffer_.valid()) {
    const int64_t alignment = std::max(file_->output().alignment, kCacheLineBytes);
    BufferPool* pool = engine_->pool();
    const int64_t bytes = lease_bytes(pool, expected_, alignment);
    buffer_ = pool != nullptr ? pool->take(bytes, engine_->options().timeout_s, *on_wait_)
                              : AlignedBuf::allocate(bytes, alignment);
    // At least two blocks, so that one is filled while the other one is written.
    const int64_t half = std::max(align_down(bytes / 2, alignment), alignment);
    const bool is_all = expected_ && bytes >= *expected_;
    block_bytes_ = std::min(most_block_bytes(alignment), is_all ? bytes : half);
    for (int block = static_cast<int>(bytes / block_bytes_); block-- > 0;) {
      free_blocks_.push_back(block);
    }
  }
  while (free_blocks_.empty()) wait_until_below(queue_->in_flight());
  block_ = free_blocks_.back();
  free_blocks_.pop_back();
  staged_ = 0;
}

void ObjectWriter::flush_block() {
  const int64_t padded = align_up(staged_, file_->output().alignment);
  std::byte* begin = buffer_.data() + block_ * block_bytes_;
  std::memset(begin + staged_, 0, static_cast<size_t>(padded - staged_));
  push({begin, static_cast<size_t>(padded)}, std::exchange(block_, WriteQueue::kNoTag));
  staged_ = 0;
}

void ObjectWriter::push(std::span<const std::byte> data, int tag) {
  wait_until_below(queue_->depth());
  const auto length = static_cast<int64_t>(data.size());
  reserve(position_ + length);
  queue_->push(file_->output(), position_, data, tag);
  position_ += length;
  collect(milliseconds(0));  // hands it to the kernel
}

void ObjectWriter::wait_until_below(int in_flight) {
  Clock::time_point last_progress = Clock::now();
  int64_t completions_seen = queue_->completions();
  while (queue_->in_flight() >= in_flight && queue_->in_flight() > 0) {
    collect(kWaitSlice);
    if (*on_wait_) (*on_wait_)();
    const int64_t completions = queue_->completions();
    if (std::exchange(completions_seen, completions) != completions) last_progress = Clock::now();
    const double timeout_s = engine_->options().timeout_s;
    if (Clock::now() - last_progress > std::chrono::duration<double>(timeout_s)) {
      throw Error(ErrorKind::write_timeout,
                  message(path_, ": no write came back for ", timeout_s,
                          " s; raise RangeEngineConfig.range_timeout if the device is that slow"));
    }
  }
}

void ObjectWriter::collect(milliseconds timeout) {
  finished_.clear();
  queue_->run(finished_, timeout);
  for (const int tag : finished_) {
    if (tag < kFirstLoanTag) {
      free_blocks_.push_back(tag);
    } else {
      end_use(static_cast<size_t>(tag - kFirstLoanTag));
    }
  }
  check_failure();
}

void ObjectWriter::check_failure() {
  if (!queue_->failure()) return;
  const auto [error_number, offset] = *queue_->failure();
  if (error_number == EINVAL && file_->output().mode == DirectMode::require) {
    throw Error(ErrorKind::direct_io,
                message(path_, ": the direct write at byte ", offset,
                        " was refused (EINVAL, alignment ", file_->output().alignment,
                        "); raise FileSystemConfig.alignment, or use direct_io='auto'"));
  }
  throw write_error_from_errno(error_number, message("write at byte ", offset), path_);
}

// Reserved space lets the file system place the file well, and direct writes run side by side
// instead of each making the file longer.
void ObjectWriter::reserve(int64_t end) {
  if (!can_reserve_ || end <= reserved_) return;
  const bool is_known = expected_ && end <= *expected_;
  const int64_t wanted = is_known ? align_up(*expected_, file_->output().alignment)
                                  : end + std::max(reserved_, kReserveBytes);
  const auto returned = std::make_shared<int>(0);
  TimedSteps::run(path_, engine_->options().timeout_s, *on_wait_,
                  [returned, wanted, file = file_, calls = calls_](TimedSteps& steps) {
                    steps.begin("the reservation of its space (fallocate)");
                    *returned = calls->allocate(file->output().fd, wanted);
                  });
  const int result = *returned;
  if (result == 0) {
    reserved_ = wanted;
    return;
  }
  can_reserve_ = false;
  // A size that is known does not fit, that is certain; else the writes will tell.
  if (is_known && kind_of_errno(-result) == ErrorKind::no_space) {
    check(result, message("reserve ", wanted, " bytes").c_str());
  }
}

void ObjectWriter::add_checksum(std::span<const std::byte> data) {
  if (engine_->options().checksums) crc_ = crc32c(crc_, data);
}

void ObjectWriter::check(int result, const char* action) const {
  if (result < 0) throw write_error_from_errno(-result, action, path_);
}

WrittenObject ObjectWriter::finish(const WaitCallback& on_wait) {
  WrittenObject written;
  guarded([&] {
    on_wait_ = &on_wait;
    if (staged_ > 0) flush_block();
    wait_until_below(1);
    const WriteEngine::Options& options = engine_->options();
    written.size_bytes = size_;
    if (options.checksums) written.crc32c = crc_;
    is_completing_ = true;
    written.checksum_kept = complete(std::move(file_),
                                     {.path = path_,
                                      .size_bytes = size_,
                                      .is_longer = std::max(position_, reserved_) != size_,
                                      .crc32c = written.crc32c,
                                      .sync = options.sync,
                                      .if_absent = if_absent_},
                                     options.timeout_s, on_wait);
    state_ = State::finished;
    let_go();
  });
  return written;
}

void ObjectWriter::cancel() noexcept {
  if (state_ != State::open || !home_.is_here()) return;
  state_ = State::cancelled;
  let_go();
}

void ObjectWriter::let_go() noexcept {
  if (queue_ != nullptr && !queue_->abandon(kAbandonTimeout)) {
    // The kernel, or a thread, may yet read from the buffer and write into the file.
    if (buffer_.valid()) buffer_.detach();
    if (file_ != nullptr) leave_behind(std::move(file_));
    never_destroy(std::move(queue_));
    never_destroy(std::move(loans_));
    return;
  }
  if (queue_ != nullptr) engine_->give_back(std::move(queue_));
  if (file_ != nullptr) abandon(std::move(file_));
  buffer_ = AlignedBuf();
}

}  // namespace s3io
