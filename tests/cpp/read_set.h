// Ranges of one file read through a ReadQueue, each into memory whose surroundings are watched.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "base/align.h"
#include "base/byte_range.h"
#include "io/page_cache.h"
#include "io/read_queue.h"
#include "memory/aligned_buf.h"
#include "testing.h"

namespace s3io::testing {

// Whether the kernel says what is in the page cache.
inline bool has_cachestat(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return cached_bytes(fd.get(), 0, 1) >= 0;
}

// Random ranges within a file, most of them unaligned, none empty.
inline std::vector<ByteRange> random_ranges(std::mt19937_64& random, int64_t count,
                                            int64_t file_bytes, int64_t max_length) {
  std::vector<ByteRange> ranges;
  for (int64_t index = 0; index < count; ++index) {
    const auto offset = static_cast<int64_t>(random() % static_cast<uint64_t>(file_bytes));
    const int64_t most = std::min(max_length, file_bytes - offset);
    ranges.push_back({offset, static_cast<int64_t>(1 + random() % static_cast<uint64_t>(most))});
  }
  return ranges;
}

class ReadSet {
 public:
  static constexpr std::byte kUntouched{0xA5};

  ReadSet(DirectFile& file, const std::vector<ByteRange>& ranges) : file_(file) {
    const int64_t alignment = file.alignment();
    for (const ByteRange& range : ranges) {
      Item& item = items_.emplace_back();
      const int64_t head = range.offset & (alignment - 1);
      item.begin = alignment;
      item.end = alignment + align_up(head + range.length, alignment);
      item.memory = AlignedBuf::allocate(item.end + alignment, alignment);
      std::fill(item.memory.bytes().begin(), item.memory.bytes().end(), kUntouched);
      item.read = {.object = &file,
                   .offset = range.offset,
                   .length = range.length,
                   .data = item.memory.data() + item.begin + head,
                   .owner = &item};
    }
  }

  // Reads everything. Fails the test if something does not come back, or comes back twice.
  void run(RangeReader& reader) {
    push(reader);
    std::vector<RangeRead*> finished;
    const Clock::time_point deadline = Clock::now() + milliseconds(60'000);
    while (!reader.idle()) {
      REQUIRE(Clock::now() < deadline);
      reader.run(finished, kWaitSlice);
    }
    REQUIRE(finished.size() == items_.size());
    for (RangeRead* read : finished) {
      auto* item = static_cast<Item*>(read->owner);
      CHECK_FALSE(std::exchange(item->finished, true));
    }
  }

  void push(RangeReader& reader) {
    for (Item& item : items_) {
      item.finished = false;
      reader.push(item.read);
    }
  }

  // What succeeded has the right bytes, and nothing was written outside of the blocks of a range.
  // Returns the errors of what failed.
  std::vector<Error> check(const Bytes& contents) const {
    std::vector<Error> errors;
    for (const Item& item : items_) {
      const RangeRead& read = item.read;
      if (read.error) {
        errors.push_back(*read.error);
        CHECK(std::string(errors.back().what()).find(file_.path()) != std::string::npos);
      } else {
        const auto begin = contents.begin() + read.offset;
        CHECK(equals(read.data, Bytes(begin, begin + read.length)));
      }
      const std::span<std::byte> all = item.memory.bytes();
      const auto untouched = [](std::byte byte) { return byte == kUntouched; };
      CHECK(std::all_of(all.begin(), all.begin() + item.begin, untouched));
      CHECK(std::all_of(all.begin() + item.end, all.end(), untouched));
    }
    return errors;
  }

 private:
  struct Item {
    AlignedBuf memory;
    int64_t begin = 0;  // of what a direct read may write
    int64_t end = 0;
    RangeRead read;
    bool finished = false;
  };

  DirectFile& file_;
  std::deque<Item> items_;
};

}  // namespace s3io::testing
