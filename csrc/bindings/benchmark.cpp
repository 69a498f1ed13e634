#include "bindings/bindings.h"
#include "io/read_benchmark.h"

namespace py = pybind11;

namespace s3io::bindings {

void register_benchmark(py::module_& module) {
  module.def(
      "measure_reads",
      [](std::string path, int64_t block_bytes, int depth, double seconds, bool sequential,
         const std::string& engine, const std::string& direct, uint64_t seed) {
        ReadBenchmarkOptions options;
        options.path = std::move(path);
        options.block_bytes = block_bytes;
        options.depth = depth;
        options.seconds = seconds;
        options.sequential = sequential;
        options.engine = parse_engine_kind(engine);
        options.direct = parse_direct_mode(direct);
        options.seed = seed;
        ReadBenchmarkResult result;
        {
          const py::gil_scoped_release no_gil;
          result = measure_reads(options);
        }
        StatsDict dict;
        dict["bytes"] = result.bytes;
        dict["requests"] = result.requests;
        dict["seconds"] = result.seconds;
        dict["engine"] = result.engine;
        return dict;
      },
      py::arg("path"), py::kw_only(), py::arg("block_bytes"), py::arg("depth"),
      py::arg("seconds"), py::arg("sequential") = false, py::arg("engine") = "auto",
      py::arg("direct") = "require", py::arg("seed") = 0,
      "Reads blocks at a constant depth for a while, as the reader does. For benchmarks.");
}

}  // namespace s3io::bindings
