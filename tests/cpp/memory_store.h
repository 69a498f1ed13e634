// A store whose objects lie in memory, for what files cannot be made to do: reads come back in any
// order, some fail, some never come, and what they write is watched.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/align.h"
#include "store/store.h"
#include "testing.h"

namespace s3io::testing {

class MemoryStore final : public Store {
 public:
  struct Options {
    int64_t block_bytes = 1;  // as Object says
    int64_t max_open = 64;
    int failing_read = -1;  // by its number, from 0 on
    int lost_reads_from = -1;
    bool forgets = true;       // `abandon` succeeds
    milliseconds slowness{0};  // of every read
    uint64_t seed = 0;
  };

  explicit MemoryStore(Options options) : options_(options) {}

  // Puts another version in the place of an earlier one.
  void put(const std::string& path, Bytes bytes) {
    const std::lock_guard lock(mutex_);
    Version& version = objects_[path];
    version.number.size_bytes = static_cast<int64_t>(bytes.size());
    version.number.modified_ns += 1;
    version.bytes = std::make_shared<const Bytes>(std::move(bytes));
  }
  int64_t open_objects() const { return open_objects_; }
  int64_t most_open_objects() const { return most_open_objects_; }

  ObjectInfo stat(const std::string& path) override { return {version(path).number, 0}; }

  std::vector<std::string> list(const std::string& prefix) override {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> paths;
    for (const auto& object : objects_) {
      if (object.first.starts_with(prefix)) paths.push_back(object.first);
    }
    return paths;
  }

  std::shared_ptr<Object> open(const std::string& path) override {
    return std::make_shared<MemoryObject>(*this, path, version(path));
  }

  std::shared_ptr<Object> open(const std::string& path, const ObjectVersion& wanted) override {
    const Version now = version(path);
    if (now.number != wanted) throw Error(ErrorKind::file_changed, path + ": another version");
    return std::make_shared<MemoryObject>(*this, path, now);
  }

  int64_t max_open_objects() const override { return options_.max_open; }

  std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options,
                                           ReadCounters& counters) override {
    auto reader = std::make_unique<Reader>(*this, options, counters);
    // One that cannot be abandoned is left behind, on purpose: no leak.
    static auto* left_behind = new std::vector<RangeReader*>;
    if (!options_.forgets) left_behind->push_back(reader.get());
    return reader;
  }

 private:
  struct Version {
    ObjectVersion number;
    std::shared_ptr<const Bytes> bytes;
  };

  class MemoryObject final : public Object {
   public:
    MemoryObject(MemoryStore& store, std::string path, Version version)
        : store_(store), path_(std::move(path)), version_(std::move(version)) {
      const int64_t open = ++store_.open_objects_;
      int64_t most = store_.most_open_objects_;
      while (open > most && !store_.most_open_objects_.compare_exchange_weak(most, open)) {
      }
    }
    ~MemoryObject() override { --store_.open_objects_; }

    const std::string& path() const override { return path_; }
    int64_t size() const override { return version_.number.size_bytes; }
    int64_t block_bytes() const override { return store_.options_.block_bytes; }
    void check_unchanged() const override {
      if (store_.version(path_).number != version_.number) {
        throw Error(ErrorKind::file_changed, path_ + ": another version by now");
      }
    }
    void keep_open() override {}
    const Bytes& bytes() const { return *version_.bytes; }

   private:
    MemoryStore& store_;
    const std::string path_;
    const Version version_;
  };

  class Reader final : public RangeReader {
   public:
    Reader(MemoryStore& store, const ReaderOptions& options, ReadCounters& counters)
        : store_(store), depth_(options.depth), counters_(counters), random_(store.options_.seed) {}

    void push(RangeRead& range) override {
      range.error.reset();
      range.parts_in_flight = 1;
      const bool is_lost =
          store_.options_.lost_reads_from >= 0 && number_ >= store_.options_.lost_reads_from;
      (is_lost ? lost_ : waiting_).push_back({&range, number_++});
    }

    // In any order, a few at a time.
    void run(std::vector<RangeRead*>& finished, milliseconds timeout) override {
      if (waiting_.empty()) {
        std::this_thread::sleep_for(std::min(timeout, milliseconds(5)));
        return;
      }
      std::this_thread::sleep_for(store_.options_.slowness);
      std::shuffle(waiting_.begin(), waiting_.end(), random_);
      for (uint64_t count = 1 + random_() % 4; count > 0 && !waiting_.empty(); --count) {
        const Waiting next = waiting_.back();
        waiting_.pop_back();
        read(*next.range, next.number);
        finished.push_back(next.range);
        ++completions_;
      }
    }

    bool has_backlog() const override { return static_cast<int>(waiting_.size()) > depth_; }
    bool idle() const override { return waiting_.empty() && lost_.empty(); }
    int64_t completions() const override { return completions_; }
    bool abandon(milliseconds) noexcept override {
      waiting_.clear();
      if (!store_.options_.forgets) return lost_.empty();
      for (const Waiting& lost : lost_) lost.range->parts_in_flight = 0;
      lost_.clear();
      return true;
    }
    bool register_buffer(int, std::span<std::byte>) override { return false; }
    std::string_view name() const override { return "memory"; }

   private:
    struct Waiting {
      RangeRead* range;
      int number;
    };

    void read(RangeRead& range, int number) {
      range.parts_in_flight = 0;
      if (number == store_.options_.failing_read) {
        range.error = Error(ErrorKind::read, range.object->path() + ": this read fails");
        return;
      }
      const Bytes& bytes = static_cast<const MemoryObject&>(*range.object).bytes();
      const int64_t block = store_.options_.block_bytes;
      const auto size = static_cast<int64_t>(bytes.size());
      REQUIRE(range.offset + range.length <= size);
      const int64_t begin = align_down(range.offset, block);
      const int64_t end = std::min(align_up(range.offset + range.length, block), size);
      std::copy(bytes.begin() + begin, bytes.begin() + end, range.data - (range.offset - begin));
      counters_.requests.fetch_add(1);
      counters_.direct_bytes.fetch_add(end - begin);
    }

    MemoryStore& store_;
    const int depth_;
    ReadCounters& counters_;
    std::mt19937_64 random_;
    std::vector<Waiting> waiting_;
    std::vector<Waiting> lost_;
    int number_ = 0;
    int64_t completions_ = 0;
  };

  Version version(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(path);
    if (found == objects_.end()) throw Error(ErrorKind::not_found, path + ": not there");
    return found->second;
  }

  const Options options_;
  std::mutex mutex_;  // guards what follows
  std::map<std::string, Version> objects_;
  std::atomic<int64_t> open_objects_{0};
  std::atomic<int64_t> most_open_objects_{0};
};

}  // namespace s3io::testing
