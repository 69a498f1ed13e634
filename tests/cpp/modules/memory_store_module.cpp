// The store of the C++ tests for the Python ones: a module of its own, which shares nothing with
// the extension but the headers of its seams.
#define DOCTEST_CONFIG_DISABLE

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <string_view>

#include "memory_store.h"

namespace py = pybind11;
using s3io::testing::MemoryStore;

PYBIND11_MODULE(memory_store, module) {
  py::module_::import("torch_s3io._C");  // which knows its base class
  py::class_<MemoryStore, s3io::Store, std::shared_ptr<MemoryStore>>(module, "MemoryStore")
      .def(py::init([](int64_t block_bytes, int64_t max_open, int failing_read, int lost_reads_from,
                       int64_t slowness_ms) {
             return std::make_shared<MemoryStore>(
                 MemoryStore::Options{.block_bytes = block_bytes,
                                      .max_open = max_open,
                                      .failing_read = failing_read,
                                      .lost_reads_from = lost_reads_from,
                                      .slowness = s3io::milliseconds(slowness_ms)});
           }),
           py::kw_only(), py::arg("block_bytes"), py::arg("max_open"), py::arg("failing_read"),
           py::arg("lost_reads_from"), py::arg("slowness_ms"))
      .def("put", [](MemoryStore& store, const std::string& path, const py::bytes& bytes) {
        const std::string_view view = bytes;
        const auto* data = reinterpret_cast<const std::byte*>(view.data());
        store.put(path, s3io::testing::Bytes(data, data + view.size()));
      });
}
