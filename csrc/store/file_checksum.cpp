#include "store/file_checksum.h"

#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "base/align.h"
#include "base/crc32c.h"
#include "base/fork_owned.h"
#include "io/direct_file.h"
#include "memory/aligned_buf.h"
#include "store/range_engine.h"
#include "store/waiting.h"

namespace s3io {
namespace {

constexpr int kDepth = 8;
constexpr int64_t kLeastBlockBytes = int64_t{1} << 20;

// What reads may still touch when a call gives up; it is then left behind.
struct Reading {
  Reading(Store& store, const std::shared_ptr<Object>& read)
      : object(read),
        block_bytes(std::max(kLeastBlockBytes, object->block_bytes())),
        reader(store.make_reader({.depth = kDepth, .chunk_bytes = block_bytes, .any_thread = true},
                                 counters)),
        memory(AlignedBuf::allocate(kDepth * block_bytes,
                                    std::max(object->block_bytes(), kCacheLineBytes))) {
    finished.reserve(kDepth);
  }

  static size_t slot(int64_t number) { return static_cast<size_t>(number % kDepth); }
  std::byte* block(int64_t number) { return memory.data() + number % kDepth * block_bytes; }

  void push(int64_t number) {
    RangeRead& read = reads[slot(number)];
    const int64_t offset = number * block_bytes;
    is_done[slot(number)] = false;
    read = {.object = object.get(),
            .offset = offset,
            .length = std::min(block_bytes, object->size() - offset),
            .data = block(number)};
    reader->push(read);
  }

  // Whether block `number` is there now.
  bool take_back(const RangeRead& read, int64_t number) {
    if (read.error) throw Error(*read.error);
    is_done[static_cast<size_t>(&read - reads.data())] = true;
    return is_done[slot(number)];
  }

  const std::shared_ptr<Object> object;
  const int64_t block_bytes;  // a multiple of the object's blocks
  ReadCounters counters;
  const std::unique_ptr<RangeReader> reader;
  AlignedBuf memory;
  std::array<RangeRead, kDepth> reads;
  std::array<bool, kDepth> is_done{};
  std::vector<RangeRead*> finished;
};

uint32_t read_all(Reading& reading, double timeout_s, const WaitCallback& on_wait) {
  const int64_t size = reading.object->size();
  const int64_t blocks = (size + reading.block_bytes - 1) / reading.block_bytes;
  uint32_t crc = 0;
  for (int64_t number = 0; number < std::min<int64_t>(blocks, kDepth); ++number) {
    reading.push(number);
  }
  for (int64_t number = 0; number < blocks; ++number) {
    if (!reading.is_done[Reading::slot(number)]) {
      run_until(
          *reading.reader, reading.finished, timeout_s, on_wait,
          [&](const RangeRead& read) { return reading.take_back(read, number); },
          [&] { return late_text(reading.object->path(), timeout_s); });
    }
    const int64_t length = reading.reads[Reading::slot(number)].length;
    crc = crc32c(crc, {reading.block(number), static_cast<size_t>(length)});
    if (number + kDepth < blocks) reading.push(number + kDepth);
  }
  reading.object->check_unchanged();
  return crc;
}

}  // namespace

FileChecksum checksum_of_object(Store& store, const std::shared_ptr<Object>& object,
                                double timeout_s, const WaitCallback& on_wait) {
  auto reading = std::make_unique<Reading>(store, object);
  try {
    const uint32_t crc = read_all(*reading, timeout_s, on_wait);
    return {reading->object->size(), crc};
  } catch (...) {
    if (!reading->reader->abandon(kAbandonTimeout)) never_destroy(std::move(reading));
    throw;
  }
}

std::optional<uint32_t> kept_checksum(const std::string& path) {
  const int64_t size_bytes = inspect_file(path).version.size_bytes;
  std::array<char, 64> text{};
  const ssize_t count = ::getxattr(path.c_str(), kChecksumAttribute, text.data(), text.size());
  if (count < 0) return std::nullopt;
  const auto kept = parse_checksum({text.data(), static_cast<size_t>(count)});
  if (!kept || kept->size_bytes != size_bytes) return std::nullopt;
  return kept->crc32c;
}

}  // namespace s3io
