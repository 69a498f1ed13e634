#include "io/read_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "base/align.h"
#include "base/counter.h"

namespace s3io {
namespace {

// From this depth on completions are collected an eighth at a time, which spares most system calls.
// A quarter at a time spares few more, and leaves the device with less to do.
constexpr int kDeep = 32;
constexpr int kReapedShare = 8;
// After so many ranges in a row that were in the page cache, or were not, only one in kProbeEvery
// is still looked up: a prime, since records often come in groups of a power of two. A wrong guess
// costs more where the range turns out to be missing: through the page cache it is read slowly.
constexpr int kHitsBeforeSampling = 256;
constexpr int kMissesBeforeSampling = 32;
constexpr int kProbeEvery = 17;

constexpr const char* kDeviceFailed =
    "; the device or its file system reports that: the kernel's log (dmesg) says more";

// Shorter copies take less when io_uring makes them, many with one system call.
constexpr int64_t kShortestShared = int64_t{16} << 10;

// `error_number` 0: the file ended too early, at `offset`.
Error error_of(const RangeRead& range, const DirectFile& file, int error_number, int64_t offset) {
  const std::string where =
      message("bytes ", range.offset, " to ", range.offset + range.length, " of ", file.path());
  if (error_number == 0) {
    return Error(ErrorKind::file_changed, message(where, ": the file ends at byte ", offset,
                                                  "; was it truncated after it was opened?"));
  }
  if (error_number == EINVAL && file.mode() == DirectMode::require) {
    return Error(ErrorKind::direct_io,
                 message(where, ": the direct read was refused (EINVAL, alignment ",
                         file.alignment(), "); raise alignment, or use direct='auto'"));
  }
  return Error(ErrorKind::read,
               message(where, ": the read failed at byte ", offset, ": ", errno_text(error_number),
                       error_number == EIO ? kDeviceFailed : ""));
}

}  // namespace

ReadQueue::ReadQueue(std::unique_ptr<IoEngine> engine, const ReadQueueOptions& options,
                     ReadCounters* counters)
    : engine_(std::move(engine)),
      options_(options),
      counters_(counters),
      chunks_(static_cast<size_t>(engine_->depth())),
      completed_(chunks_.size()) {
  for (auto* list : {&prepared_, &copies_, &made_}) list->reserve(chunks_.size());
  free_all_chunks();
}

void ReadQueue::free_all_chunks() {
  free_chunks_ = nullptr;
  for (Chunk& chunk : chunks_) {
    chunk.next_free = free_chunks_;
    free_chunks_ = &chunk;
  }
}

void ReadQueue::push(RangeRead& range) {
  range.error.reset();
  range.next_offset = range.offset;
  range.parts_in_flight = 0;
  range.next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = &range;
  last_ = &range;
}

ReadQueue::Route ReadQueue::uncached_route(const Chunk& chunk) const {
  const DirectFile& file = *chunk.file;
  if (!file.can_read_direct()) return Route::buffered;
  const bool too_short =
      chunk.range->length < options_.min_direct_bytes && file.can_read_buffered();
  return too_short ? Route::buffered : Route::direct;
}

// Whether several threads had better copy the chunk, if the page cache has it.
bool ReadQueue::may_share(const Chunk& chunk) const {
  return options_.copiers > 1 && chunk.range->length >= options_.min_shared_bytes &&
         chunk.end - chunk.position >= kShortestShared;
}

void ReadQueue::choose_route(Chunk& chunk) {
  const DirectFile& file = *chunk.file;
  const bool fills = options_.fill_block_bytes > 0 && file.can_read_buffered();
  const Route uncached = fills ? Route::buffered : uncached_route(chunk);
  const bool may_be_direct = uncached == Route::direct && file.mode() == DirectMode::automatic;
  const bool may_share = this->may_share(chunk);
  std::optional<Route> cached;
  if (file.can_probe_cache() &&
      (fills || may_be_direct || (may_share && uncached == Route::buffered))) {
    cached = route_if_cached(chunk, !fills);
  }
  chunk.is_shared_copy = cached && may_share;
  if (fills && !cached) fill(chunk);
  // Where nothing is read directly it does not count what is found there.
  chunk.route = fills || may_be_direct ? cached.value_or(uncached) : uncached;
}

// The route of what is in the page cache, for sure or by what was found lately; none for what is
// not.
std::optional<ReadQueue::Route> ReadQueue::route_if_cached(const Chunk& chunk,
                                                           bool may_guess_missing) {
  const bool guess_cached = consecutive_hits_ >= kHitsBeforeSampling;
  const bool guess_missing = may_guess_missing && consecutive_misses_ >= kMissesBeforeSampling;
  if ((guess_cached || guess_missing) && guess_again()) {
    return guess_cached ? std::optional(Route::buffered) : std::nullopt;
  }
  return ask(chunk) == CacheState::cached ? std::optional(Route::cached) : std::nullopt;
}

// Neighbours come along that other batches will ask for: read one by one, small records would take
// the device several times as long.
void ReadQueue::fill(const Chunk& chunk) {
  const DirectFile& file = *chunk.file;
  const int64_t begin = align_down(chunk.position, options_.fill_block_bytes);
  const int64_t end = std::min(align_up(chunk.end, options_.fill_block_bytes), file.size());
  const int64_t missing = bring_into_cache(file.buffered_fd(), begin, end - begin);
  if (file.can_probe_cache()) add(counters_->filled_bytes, missing);
}

bool ReadQueue::guess_again() { return ++unprobed_ % kProbeEvery != 0; }

CacheState ReadQueue::ask(const Chunk& chunk) {
  DirectFile& file = *chunk.file;
  const CacheState state =
      cache_state(file.buffered_fd(), chunk.position, chunk.end - chunk.position);
  if (state == CacheState::unknown) {
    file.refuse_cache_probes();
  } else if (state == CacheState::cached) {
    consecutive_misses_ = 0;
    consecutive_hits_ = std::min(consecutive_hits_ + 1, kHitsBeforeSampling);
  } else {
    consecutive_hits_ = 0;
    consecutive_misses_ = std::min(consecutive_misses_ + 1, kMissesBeforeSampling);
  }
  return state;
}

void ReadQueue::prepare(Chunk& chunk) {
  const RangeRead& range = *chunk.range;
  const DirectFile& file = *chunk.file;
  const bool direct = chunk.route == Route::direct;
  const int64_t alignment = direct ? file.alignment() : 1;
  const int64_t begin = align_down(chunk.position, alignment);
  const int64_t end = align_up(chunk.end, alignment);
  chunk.fd = direct ? file.direct_fd() : file.buffered_fd();
  chunk.offset = begin;
  chunk.length = static_cast<uint32_t>(end - begin);
  chunk.data = range.data + (begin - range.offset);
  // The kernel copies out of the page cache in larger pieces where the buffer is not a registered
  // one.
  chunk.buffer_index = direct ? range.buffer_index : -1;
  chunk.is_shared_copy = chunk.is_shared_copy && !direct;  // a retry may go to the device
  (chunk.is_shared_copy ? copies_ : prepared_).push_back(&chunk);
}

void ReadQueue::begin_chunks() {
  while (first_ != nullptr && free_chunks_ != nullptr) {
    RangeRead& range = *first_;
    const int64_t end = range.offset + range.length;
    auto& file = static_cast<DirectFile&>(*range.object);
    const int64_t alignment = file.alignment();
    const int64_t most = range.chunk_bytes > 0 ? range.chunk_bytes : options_.chunk_bytes;
    while (range.next_offset < end && free_chunks_ != nullptr) {
      Chunk& chunk = *free_chunks_;
      free_chunks_ = chunk.next_free;
      chunk.range = &range;
      chunk.file = &file;
      chunk.position = range.next_offset;
      // Chunks end at aligned offsets of the file, so that two of them never read the same bytes.
      chunk.end = std::min(end, align_down(range.next_offset, alignment) + most);
      choose_route(chunk);
      chunk.attempts = 0;
      prepare(chunk);
      range.next_offset = chunk.end;
      ++range.parts_in_flight;
      ++chunks_in_flight_;
    }
    if (range.next_offset < end) return;
    first_ = range.next;
  }
}

void ReadQueue::submit_prepared() {
  if (prepared_.empty()) return;
  add(counters_->requests, static_cast<int64_t>(prepared_.size()));
  engine_->submit(prepared_);
  prepared_.clear();
}

void ReadQueue::run(std::vector<RangeRead*>& finished, milliseconds timeout) {
  const size_t finished_before = finished.size();
  const Clock::time_point deadline = Clock::now() + timeout;
  while (!idle()) {
    const bool had_backlog = has_backlog_;
    begin_chunks();
    has_backlog_ = first_ != nullptr;
    submit_prepared();
    const bool caught_up = had_backlog && !has_backlog_;  // the engine could take more
    if (copies_.empty()) {
      const int wanted = chunks_in_flight_ >= kDeep ? chunks_in_flight_ / kReapedShare : 1;
      collect(wanted, caught_up ? milliseconds(0) : std::min(timeout, kWaitSlice), finished);
    } else {
      // The device works meanwhile.
      if (chunks_in_flight_ > static_cast<int>(copies_.size())) {
        collect(1, milliseconds(0), finished);
      }
      make_copies(finished);
    }
    if (finished.size() > finished_before || caught_up || Clock::now() >= deadline) break;
  }
}

void ReadQueue::collect(int wanted, milliseconds timeout, std::vector<RangeRead*>& finished) {
  const int count = engine_->wait(completed_, wanted, timeout);
  completions_ += count;
  for (int index = 0; index < count; ++index) {
    handle(*static_cast<Chunk*>(completed_[static_cast<size_t>(index)]), finished);
  }
}

void ReadQueue::make_copies(std::vector<RangeRead*>& finished) {
  if (!crew_) crew_.emplace(options_.copiers);
  made_.swap(copies_);
  crew_->run(made_);
  for (IoRequest* request : made_) {
    Chunk& chunk = *static_cast<Chunk*>(request);
    if (chunk.result < 0) {  // not there, or not yet, or the file system cannot tell
      const auto error_number = static_cast<int>(-chunk.result);
      if (error_number == EOPNOTSUPP || may_be_filtered(error_number)) options_.copiers = 1;
      chunk.is_shared_copy = false;
      chunk.route = Route::buffered;
      prepare(chunk);
      continue;
    }
    add(counters_->requests, 1);
    ++completions_;
    handle(chunk, finished);
  }
  made_.clear();
}

void ReadQueue::handle(Chunk& chunk, std::vector<RangeRead*>& finished) {
  const int64_t result = chunk.result;
  const bool done =
      result >= 0 ? handle_data(chunk, result) : handle_error(chunk, static_cast<int>(-result));
  if (!done) {
    prepare(chunk);
    return;
  }
  RangeRead& range = *chunk.range;
  chunk.next_free = free_chunks_;
  free_chunks_ = &chunk;
  --chunks_in_flight_;
  --range.parts_in_flight;
  const bool all_begun = range.next_offset == range.offset + range.length;
  if (range.parts_in_flight > 0 || !all_begun) return;
  if (first_ == &range) first_ = range.next;
  finished.push_back(&range);
}

bool ReadQueue::handle_data(Chunk& chunk, int64_t count) {
  const DirectFile& file = *chunk.file;
  const int64_t reached = chunk.offset + count;
  const Route route = chunk.route;
  std::atomic<int64_t>& bytes = route == Route::direct   ? counters_->direct_bytes
                                : route == Route::cached ? counters_->cached_bytes
                                                         : counters_->buffered_bytes;
  add(bytes, count);
  if (reached >= chunk.end) return true;

  add(counters_->short_reads, 1);
  const int64_t position =
      std::max(chunk.position, align_down(reached, route == Route::direct ? file.alignment() : 1));
  const bool progressed = position > chunk.position;
  chunk.position = position;
  if (progressed) {
    chunk.attempts = 0;
    return false;
  }
  const int64_t size_now = file.size_now();
  if (size_now >= 0 && size_now < chunk.end) {
    fail(chunk, 0, size_now);
    return true;
  }
  return !retry(chunk, EIO);
}

bool ReadQueue::handle_error(Chunk& chunk, int error_number) {
  DirectFile& file = *chunk.file;
  if (error_number == EINTR || error_number == EAGAIN) {
    add(counters_->retries, 1);
    return !retry(chunk, error_number);
  }
  if (chunk.route != Route::direct && uncached_route(chunk) == Route::direct) {
    // The page is gone again, or there was no memory for another one: ask the device itself.
    add(counters_->retries, 1);
    chunk.route = Route::direct;
    return false;
  }
  if (error_number == EINVAL && chunk.route == Route::direct && file.can_read_buffered()) {
    file.refuse_direct();
    add(counters_->direct_refused, 1);
    chunk.route = Route::buffered;
    return false;
  }
  fail(chunk, error_number, chunk.position);
  return true;
}

bool ReadQueue::retry(Chunk& chunk, int error_number) {
  if (++chunk.attempts < kMaxAttempts) return true;
  fail(chunk, error_number, chunk.position);
  return false;
}

void ReadQueue::fail(Chunk& chunk, int error_number, int64_t error_offset) {
  RangeRead& range = *chunk.range;
  if (!range.error) range.error = error_of(range, *chunk.file, error_number, error_offset);
  range.next_offset = range.offset + range.length;  // begin no more of it
}

bool ReadQueue::abandon(milliseconds timeout) noexcept {
  first_ = last_ = nullptr;
  has_backlog_ = false;
  for (auto* list : {&prepared_, &copies_}) {  // these never reached the engine
    for (IoRequest* request : *list) {
      --static_cast<Chunk*>(request)->range->parts_in_flight;
      --chunks_in_flight_;
    }
    list->clear();
  }
  const Clock::time_point deadline = Clock::now() + timeout;
  try {
    while (chunks_in_flight_ > 0 && Clock::now() < deadline) {
      const int count = engine_->wait(completed_, chunks_in_flight_, kWaitSlice);
      for (int index = 0; index < count; ++index) {
        --static_cast<Chunk*>(completed_[static_cast<size_t>(index)])->range->parts_in_flight;
      }
      chunks_in_flight_ -= count;
    }
  } catch (const Error&) {  // nobody knows what is still in flight
    return false;
  }
  if (chunks_in_flight_ > 0) return false;
  free_all_chunks();
  return true;
}

}  // namespace s3io
