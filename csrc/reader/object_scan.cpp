#include "reader/object_scan.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/align.h"
#include "base/fork_owned.h"
#include "memory/aligned_buf.h"
#include "store/waiting.h"

namespace s3io {
namespace {

constexpr int64_t kHopBytes = 4096;
constexpr int64_t kWholeBytes = int64_t{1} << 20;
// A hop takes a latency, which the objects that are read at once share; to read what lies between
// takes the bandwidth. They are equal at about 100 us * 2.2 GB/s / 32.
constexpr int64_t kNearBytes = 7000;
// Hops by whose mean length that is decided, again and again.
constexpr int64_t kHopsToDecide = 64;
constexpr milliseconds kCallbackInterval{20};

// Counts the reads that hops take, also while everything is read.
class HopMeter {
 public:
  // Whether headers lie near to each other, as far as is known.
  bool is_near() const { return is_near_; }

  void pass(ByteRange header) {
    if (header.end() <= seen_end_) return;
    seen_end_ = std::max(header.end(), header.offset + kHopBytes);
    if (++hops_ < kHopsToDecide) return;
    is_near_ = header.offset - begin_ < kHopsToDecide * kNearBytes;
    begin_ = header.offset;
    hops_ = 0;
  }

 private:
  bool is_near_ = false;
  int64_t begin_ = 0;
  int64_t seen_end_ = 0;
  int64_t hops_ = 0;
};

// One object at a time, with memory for one read.
struct Lane {
  RangeRead read;
  AlignedBuf buffer;
  int64_t buffer_block = 0;
  std::shared_ptr<Object> object;  // null: there is nothing to do any more
  std::unique_ptr<HeaderChain> chain;
  HopMeter hops;
};

class Scan {
 public:
  Scan(std::shared_ptr<Store> store, std::vector<ObjectToScan> objects, const ScanOptions& options)
      : store_(std::move(store)), objects_(std::move(objects)), options_(options) {
    const auto most = std::min<int64_t>(store_->max_open_objects(), std::ssize(objects_));
    lanes_.resize(
        static_cast<size_t>(std::clamp<int64_t>(options_.depth, 1, std::max<int64_t>(most, 1))));
    finished_.reserve(lanes_.size());
    reader_ = store_->make_reader(
        {.depth = static_cast<int>(lanes_.size()), .chunk_bytes = kWholeBytes}, counters_);
  }

  void run(const MakeChain& make_chain, const ScanCallback& on_progress) {
    for (Lane& lane : lanes_) begin_object(lane, make_chain);
    if (lanes_at_work_ == 0) return;
    Clock::time_point next_call = Clock::now();
    const auto on_wait = [&] {
      if (!on_progress || Clock::now() < next_call) return;
      next_call = Clock::now() + kCallbackInterval;
      on_progress(progress_);
    };
    run_until(
        *reader_, finished_, options_.read_timeout_s, on_wait,
        [&](const RangeRead& read) { return take_back(read, make_chain); },
        [&] { return late_text(); });
  }

  bool abandon() noexcept { return reader_->abandon(kAbandonTimeout); }
  const ScanProgress& progress() const { return progress_; }
  ScanCounts counts() const {
    return {counters_.requests,
            counters_.direct_bytes + counters_.cached_bytes + counters_.buffered_bytes};
  }

 private:
  // Begins the next object that is not at its end at once.
  void begin_object(Lane& lane, const MakeChain& make_chain) {
    for (; next_object_ < objects_.size(); ++progress_.objects) {
      const size_t number = next_object_++;
      const auto& [path, version] = objects_[number];
      lane.object.reset();  // before the next one is opened
      lane.object = version ? store_->open(path, *version) : store_->open(path);
      lane.chain = make_chain(number, lane.object->path(), lane.object->size());
      lane.hops = {};
      if (lane.chain->wanted().length > 0) {
        ++lanes_at_work_;
        return begin_read(lane);
      }
    }
    lane.object.reset();
    lane.chain.reset();
  }

  void begin_read(Lane& lane) {
    const ByteRange wanted = lane.chain->wanted();
    const int64_t block = lane.object->block_bytes();
    const int64_t size = lane.object->size();
    if (lane.buffer_block < block) {
      lane.buffer = AlignedBuf::allocate(kWholeBytes + 2 * block, std::max(block, kPageBytes));
      lane.buffer_block = block;
    }
    const int64_t begin = align_down(wanted.offset, block);
    const int64_t ahead = lane.hops.is_near() ? kWholeBytes : kHopBytes;
    // No more than one read of the store, where what is wanted fits into that.
    const int64_t end =
        std::max(wanted.end(), std::min(wanted.offset + ahead, begin + kWholeBytes));
    lane.read = {.object = lane.object.get(),
                 .offset = begin,
                 .length = std::min(align_up(end, block), size) - begin,
                 .data = lane.buffer.data(),
                 .owner = &lane};
    reader_->push(lane.read);
  }

  // Whether it was the last one.
  bool take_back(const RangeRead& read, const MakeChain& make_chain) {
    if (read.error) throw Error(*read.error);
    Lane& lane = *static_cast<Lane*>(read.owner);
    const int64_t end = read.offset + read.length;
    const int64_t begin_wanted = lane.chain->wanted().offset;
    ByteRange wanted = lane.chain->wanted();
    while (wanted.length > 0 && wanted.end() <= end) {
      lane.hops.pass(wanted);
      lane.chain->take(
          {read.data + (wanted.offset - read.offset), static_cast<size_t>(wanted.length)});
      wanted = lane.chain->wanted();
    }
    if (wanted.length > 0) {
      progress_.bytes += wanted.offset - begin_wanted;
      begin_read(lane);
      return false;
    }
    progress_.bytes += lane.object->size() - begin_wanted;
    progress_.objects += 1;
    lane.object->check_unchanged();
    --lanes_at_work_;
    begin_object(lane, make_chain);
    return lanes_at_work_ == 0;
  }

  std::string late_text() const {
    const auto waits = [](const Lane& lane) {
      return lane.object && lane.read.parts_in_flight > 0;
    };
    const auto late = std::find_if(lanes_.begin(), lanes_.end(), waits);
    const std::string where = late == lanes_.end()
                                  ? "the store"
                                  : message(late->object->path(), ", byte ", late->read.offset);
    return message(where, ": no data for ", options_.read_timeout_s,
                   " s; raise read_timeout_s if the device is that slow");
  }

  const std::shared_ptr<Store> store_;
  const std::vector<ObjectToScan> objects_;
  const ScanOptions options_;
  ReadCounters counters_;
  std::vector<Lane> lanes_;
  std::unique_ptr<RangeReader> reader_;
  std::vector<RangeRead*> finished_;
  size_t next_object_ = 0;
  int64_t lanes_at_work_ = 0;
  ScanProgress progress_;
};

void check(const ScanOptions& options) {
  constexpr int kMostDepth = 1024;
  if (options.depth < 1 || options.depth > kMostDepth || !(options.read_timeout_s > 0)) {
    throw Error(ErrorKind::config, message("depth must be between 1 and ", kMostDepth,
                                           ", and read_timeout_s > 0, not ", options.depth, " and ",
                                           options.read_timeout_s));
  }
}

}  // namespace

ScanCounts scan_objects(std::shared_ptr<Store> store, std::vector<ObjectToScan> objects,
                        const MakeChain& make_chain, const ScanOptions& options,
                        const ScanCallback& on_progress) {
  check(options);
  if (objects.empty()) return {};
  auto scan = std::make_unique<Scan>(std::move(store), std::move(objects), options);
  try {
    scan->run(make_chain, on_progress);
  } catch (...) {
    // The kernel, or a thread, may yet write into its memory.
    if (!scan->abandon()) never_destroy(std::move(scan));
    throw;
  }
  if (on_progress) on_progress(scan->progress());
  return scan->counts();
}

}  // namespace s3io
