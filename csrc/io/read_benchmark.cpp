#include "io/read_benchmark.h"

#include <random>
#include <vector>

#include "base/align.h"
#include "io/read_queue.h"
#include "memory/slab.h"

namespace s3io {

ReadBenchmarkResult measure_reads(const ReadBenchmarkOptions& options) {
  if (options.block_bytes < 512 || options.block_bytes > (int64_t{1} << 30)) {
    throw Error(ErrorKind::config, "block_bytes must be between 512 and 1 GiB");
  }
  DirectFile file(options.path, options.direct, 0);
  const int64_t blocks = file.size() / options.block_bytes;
  if (blocks < 1) throw Error(ErrorKind::config, "the file is smaller than one block");
  ReadCounters counters;
  ReadQueue queue(make_engine({.kind = options.engine, .depth = options.depth}),
                  {.chunk_bytes = align_up(options.block_bytes, file.alignment())}, &counters);
  // One slot for all blocks: a single registration, as few pages as possible.
  const int64_t stride = align_up(options.block_bytes, std::max<int64_t>(file.alignment(), 512));
  const int64_t turns = std::max<int64_t>(1, options.memory_bytes / (stride * options.depth));
  const int64_t memory_bytes = turns * stride * options.depth;
  Slab slab({1, memory_bytes, kPageBytes});
  slab.prepare(0, memory_bytes);
  std::byte* memory = slab.slot_data(0);
  const bool registered = queue.register_buffer(0, {memory, static_cast<size_t>(memory_bytes)});

  std::mt19937_64 random(options.seed);
  std::uniform_int_distribution<int64_t> any_block(0, blocks - 1);
  int64_t next_block = 0;
  int64_t pushed = 0;
  ReadBenchmarkResult result;
  std::vector<RangeRead> reads(static_cast<size_t>(options.depth));
  std::vector<RangeRead*> finished;
  finished.reserve(reads.size());
  const auto push = [&](RangeRead& read) {
    const int64_t block = options.sequential ? next_block++ % blocks : any_block(random);
    read.offset = block * options.block_bytes;
    const int64_t index = &read - reads.data();
    const int64_t turn = pushed++ / options.depth % turns;
    read.data = memory + (turn * options.depth + index) * stride;
    queue.push(read);
  };
  const Clock::time_point start = Clock::now();
  const Clock::time_point deadline = deadline_after(options.seconds);
  for (size_t index = 0; index < reads.size(); ++index) {
    reads[index].object = &file;
    reads[index].length = options.block_bytes;
    reads[index].buffer_index = registered ? 0 : -1;
    push(reads[index]);
  }
  while (!queue.idle()) {
    finished.clear();
    queue.run(finished, kWaitSlice);
    const bool more = Clock::now() < deadline;
    for (RangeRead* read : finished) {
      if (read->error) throw Error(*read->error);
      result.bytes += read->length;
      if (more) push(*read);
    }
  }
  result.requests = counters.requests;
  result.seconds = static_cast<double>(nanoseconds_since(start)) * 1e-9;
  result.engine = queue.name();
  return result;
}

}  // namespace s3io
