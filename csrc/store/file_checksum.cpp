#include "store/file_checksum.h"

#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "base/align.h"
#include "base/crc32c.h"
#include "memory/aligned_buf.h"

namespace s3io {
namespace {

constexpr int kDepth = 8;
constexpr int64_t kLeastBlockBytes = int64_t{1} << 20;

// What reads may still touch when a call gives up; it is then left behind.
struct Reading {
  Reading(const std::string& path, const ChecksumOptions& options)
      : file(path, options.direct, options.min_alignment),
        block_bytes(std::max(kLeastBlockBytes, file.alignment())),
        queue(make_engine({.kind = options.engine, .depth = kDepth, .any_thread = true}),
              {.chunk_bytes = block_bytes}, &counters),
        memory(AlignedBuf::allocate(kDepth * block_bytes,
                                    std::max(file.alignment(), kCacheLineBytes))) {
    finished.reserve(kDepth);
  }

  std::byte* block(int64_t number) { return memory.data() + number % kDepth * block_bytes; }

  void push(int64_t number) {
    RangeRead& read = reads[static_cast<size_t>(number % kDepth)];
    const int64_t offset = number * block_bytes;
    is_done[static_cast<size_t>(number % kDepth)] = false;
    read = {.object = &file,
            .offset = offset,
            .length = std::min(block_bytes, file.size() - offset),
            .data = block(number)};
    queue.push(read);
  }

  DirectFile file;
  const int64_t block_bytes;  // a multiple of the alignment
  ReadCounters counters;
  ReadQueue queue;
  AlignedBuf memory;
  std::array<RangeRead, kDepth> reads;
  std::array<bool, kDepth> is_done{};
  std::vector<RangeRead*> finished;
};

void wait_for(Reading& reading, int64_t number, double timeout_s, const WaitCallback& on_wait) {
  Clock::time_point last_progress = Clock::now();
  while (!reading.is_done[static_cast<size_t>(number % kDepth)]) {
    reading.finished.clear();
    reading.queue.run(reading.finished, kWaitSlice);
    for (const RangeRead* read : reading.finished) {
      if (read->error) throw Error(*read->error);
      reading.is_done[static_cast<size_t>(read - reading.reads.data())] = true;
      last_progress = Clock::now();
    }
    if (on_wait) on_wait();
    if (Clock::now() - last_progress > std::chrono::duration<double>(timeout_s)) {
      throw Error(ErrorKind::read_timeout,
                  message(reading.file.path(), ": no data for ", timeout_s,
                          " s; raise RangeEngineConfig.range_timeout if the device is that slow"));
    }
  }
}

uint32_t read_all(Reading& reading, double timeout_s, const WaitCallback& on_wait) {
  const int64_t blocks = (reading.file.size() + reading.block_bytes - 1) / reading.block_bytes;
  uint32_t crc = 0;
  for (int64_t number = 0; number < std::min<int64_t>(blocks, kDepth); ++number) {
    reading.push(number);
  }
  for (int64_t number = 0; number < blocks; ++number) {
    wait_for(reading, number, timeout_s, on_wait);
    const int64_t length = reading.reads[static_cast<size_t>(number % kDepth)].length;
    crc = crc32c(crc, {reading.block(number), static_cast<size_t>(length)});
    if (number + kDepth < blocks) reading.push(number + kDepth);
  }
  reading.file.check_unchanged();
  return crc;
}

}  // namespace

FileChecksum checksum_of_file(const std::string& path, const ChecksumOptions& options,
                              const WaitCallback& on_wait) {
  auto reading = std::make_unique<Reading>(path, options);
  try {
    const uint32_t crc = read_all(*reading, options.timeout_s, on_wait);
    return {reading->file.size(), crc};
  } catch (...) {
    if (!reading->queue.abandon(kAbandonTimeout)) static_cast<void>(reading.release());
    throw;
  }
}

std::optional<uint32_t> kept_checksum(const std::string& path) {
  const int64_t size_bytes = inspect_file(path).identity.size_bytes;
  std::array<char, 64> text{};
  const ssize_t count = ::getxattr(path.c_str(), kChecksumAttribute, text.data(), text.size());
  if (count < 0) return std::nullopt;
  const auto kept = parse_checksum({text.data(), static_cast<size_t>(count)});
  if (!kept || kept->size_bytes != size_bytes) return std::nullopt;
  return kept->crc32c;
}

}  // namespace s3io
