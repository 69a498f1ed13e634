// Measures an engine the way a reader uses it: block reads at a constant depth, through a
// ReadQueue.
#pragma once

#include <cstdint>
#include <string>

#include "io/direct_file.h"
#include "io/io_engine.h"

namespace s3io {

struct ReadBenchmarkOptions {
  std::string path;
  int64_t block_bytes = 4096;
  int depth = 64;
  int64_t memory_bytes = 0;  // that blocks are read into, in turn; 0: `depth` blocks
  double seconds = 1;
  bool sequential = false;  // else uniformly random blocks
  EngineKind engine = EngineKind::automatic;
  DirectMode direct = DirectMode::require;
  uint64_t seed = 0;
};

struct ReadBenchmarkResult {
  int64_t bytes = 0;
  int64_t requests = 0;
  double seconds = 0;
  std::string engine;
};

// Buffers are huge pages, registered where the limits allow. Reads in the calling thread.
ReadBenchmarkResult measure_reads(const ReadBenchmarkOptions& options);

}  // namespace s3io
