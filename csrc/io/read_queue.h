// The RangeReader of files, through an IoEngine: splits ranges into chunks, keeps the engine full,
// resumes short reads, retries what may be retried, and chooses between the device and the page
// cache: a file opened with DirectMode::automatic is read from the page cache where it is there,
// directly where not. Where the page cache is to be filled, what is missing is read through it,
// with what lies around it.
//
// Worked example, alignment 512: bytes [700, 2100) into `data` (congruent to 700 modulo 512). A
// direct read asks for [512, 2560). It comes back with 1024 bytes, so [512, 1536) is there; the
// next one asks for [1536, 2560). The file ends at 2100, so that read is short too, but nothing is
// missing.
//
// One thread. Does not allocate after construction, but for threads that copy, with the first copy,
// and where they have more to share than ever before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "io/copy_crew.h"
#include "io/direct_file.h"
#include "io/io_engine.h"
#include "io/page_cache.h"
#include "io/range_reader.h"

namespace s3io {

struct ReadQueueOptions {
  int64_t chunk_bytes = int64_t{1} << 20;  // most bytes of one read; a multiple of every alignment
  int64_t min_direct_bytes = 0;  // shorter ranges go through the page cache where they may
  // Threads, the calling one among them, that copy what the page cache has of a range, and the
  // shortest range that they share.
  int copiers = 1;
  int64_t min_shared_bytes = 0;
  // What is missing is brought into the page cache in blocks of this size, a power of two; 0: not.
  int64_t fill_block_bytes = 0;
};

class ReadQueue final : public RangeReader {
 public:
  ReadQueue(std::unique_ptr<IoEngine> engine, const ReadQueueOptions& options,
            ReadCounters* counters);

  // The objects of ranges are DirectFiles.
  void push(RangeRead& range) override;
  void run(std::vector<RangeRead*>& finished, milliseconds timeout) override;
  bool has_backlog() const override { return has_backlog_ && first_ != nullptr; }
  bool idle() const override { return first_ == nullptr && chunks_in_flight_ == 0; }
  int64_t completions() const override { return completions_; }
  bool abandon(milliseconds timeout) noexcept override;
  bool register_buffer(int index, std::span<std::byte> memory) override {
    return engine_->register_buffer(index, memory);
  }
  std::string_view name() const override { return engine_->name(); }
  int ready_fd() override { return engine_->ready_fd(); }

 private:
  enum class Route : uint8_t {
    direct,
    cached,    // the others are through the page cache: it is there
    buffered,  // it may be there or not
  };

  struct Chunk : IoRequest {
    RangeRead* range = nullptr;
    DirectFile* file = nullptr;  // the range's object
    int64_t position = 0;        // first byte still missing
    int64_t end = 0;
    Route route = Route::direct;
    bool is_shared_copy = false;
    int attempts = 0;  // without progress
    Chunk* next_free = nullptr;
  };

  void free_all_chunks();
  void begin_chunks();
  Route uncached_route(const Chunk& chunk) const;
  void choose_route(Chunk& chunk);
  bool may_share(const Chunk& chunk) const;
  std::optional<Route> route_if_cached(const Chunk& chunk, bool may_guess_missing);
  void fill(const Chunk& chunk);
  CacheState ask(const Chunk& chunk);
  bool guess_again();  // counts
  void prepare(Chunk& chunk);
  void handle(Chunk& chunk, std::vector<RangeRead*>& finished);
  bool handle_data(Chunk& chunk, int64_t count);
  bool handle_error(Chunk& chunk, int error_number);
  bool retry(Chunk& chunk, int error_number);
  void fail(Chunk& chunk, int error_number, int64_t error_offset);
  void submit_prepared();
  void collect(int wanted, milliseconds timeout, std::vector<RangeRead*>& finished);
  void make_copies(std::vector<RangeRead*>& finished);

  std::unique_ptr<IoEngine> engine_;
  ReadQueueOptions options_;
  ReadCounters* counters_;
  RangeRead* first_ = nullptr;  // ranges not wholly begun
  RangeRead* last_ = nullptr;
  bool has_backlog_ = false;   // after the last `begin_chunks`
  std::vector<Chunk> chunks_;  // as many as the engine's depth
  Chunk* free_chunks_ = nullptr;
  int chunks_in_flight_ = 0;
  int64_t completions_ = 0;
  std::vector<IoRequest*> prepared_;  // for the engine
  std::vector<IoRequest*> copies_;    // for the crew
  std::vector<IoRequest*> made_;
  std::optional<CopyCrew> crew_;  // since the first copy
  std::vector<IoRequest*> completed_;
  int consecutive_hits_ = 0;  // ranges found in the page cache, as far as they were looked up
  int consecutive_misses_ = 0;
  unsigned unprobed_ = 0;
};

}  // namespace s3io
