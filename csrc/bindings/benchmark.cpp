#include <algorithm>
#include <string>
#include <vector>

#include "base/align.h"
#include "bindings/bindings.h"
#include "bindings/path.h"
#include "io/read_benchmark.h"
#include "memory/buffer_pool.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// One byte per page: what is not backed by memory yet costs a page fault.
void touch(const AlignedBuf& buffer) {
  volatile std::byte* data = buffer.data();
  for (int64_t offset = 0; offset < buffer.size(); offset += kPageBytes)
    data[offset] = std::byte{1};
}

// Makes `rounds` buffers, each of which lives until `held` more have been made.
template <typename Make>
void make_and_drop(int64_t rounds, int64_t held, const Make& make) {
  const NoGil no_gil;
  std::vector<AlignedBuf> buffers(static_cast<size_t>(std::max<int64_t>(held, 1)));
  for (int64_t round = 0; round < rounds; ++round) {
    AlignedBuf& buffer = buffers[static_cast<size_t>(round) % buffers.size()];
    buffer = AlignedBuf();
    buffer = make();
    touch(buffer);
  }
}

}  // namespace

void register_benchmark(py::module_& module) {
  module.def(
      "measure_reads",
      [](const Path& path, int64_t block_bytes, int depth, double seconds, bool sequential,
         const std::string& engine, const std::string& direct, uint64_t seed,
         int64_t memory_bytes) {
        ReadBenchmarkOptions options;
        options.path = path.native;
        options.block_bytes = block_bytes;
        options.depth = depth;
        options.seconds = seconds;
        options.sequential = sequential;
        options.engine = parse_engine_kind(engine);
        options.direct = parse_direct_mode(direct);
        options.seed = seed;
        options.memory_bytes = memory_bytes;
        ReadBenchmarkResult result;
        {
          const NoGil no_gil;
          result = measure_reads(options);
        }
        StatsDict dict;
        dict["bytes"] = result.bytes;
        dict["requests"] = result.requests;
        dict["seconds"] = result.seconds;
        dict["engine"] = result.engine;
        return dict;
      },
      py::arg("path"), py::kw_only(), py::arg("block_bytes"), py::arg("depth"), py::arg("seconds"),
      py::arg("sequential") = false, py::arg("engine") = "auto", py::arg("direct") = "require",
      py::arg("seed") = 0, py::arg("memory_bytes") = 0,
      "Reads blocks at a constant depth for a while, as the reader does. For benchmarks.");
  module.def(
      "benchmark_take_give",
      [](BufferPool& pool, int64_t rounds, int64_t held) {
        make_and_drop(rounds, held, [&] { return pool.take(pool.config().buffer_size, 1); });
      },
      py::arg("pool"), py::kw_only(), py::arg("rounds"), py::arg("held") = 1,
      "Takes, touches and gives buffers, `held` of them at a time. For benchmarks.");
  module.def(
      "benchmark_allocate_free",
      [](int64_t size_bytes, int64_t alignment, int64_t rounds, int64_t held) {
        make_and_drop(rounds, held, [&] { return AlignedBuf::allocate(size_bytes, alignment); });
      },
      py::arg("size_bytes"), py::kw_only(), py::arg("alignment"), py::arg("rounds"),
      py::arg("held") = 1,
      "Allocates, touches and frees buffers, `held` of them at a time. For benchmarks.");
}

}  // namespace s3io::bindings
