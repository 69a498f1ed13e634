#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "base/processors.h"
#include "bindings/bindings.h"
#include "bindings/tensors.h"
#include "memory/available_memory.h"
#include "memory/buffer_pool.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

StatsDict pool_stats(const BufferPoolStats& stats) {
  StatsDict dict;
  dict["taken"] = stats.taken;
  dict["waited"] = stats.waited;
  dict["wait_s"] = static_cast<double>(stats.wait_ns) * 1e-9;
  dict["in_use"] = stats.in_use;
  dict["peak"] = stats.peak;
  dict["oversize"] = stats.oversize;
  dict["huge_pages"] = stats.huge_pages;
  dict["small_pages"] = stats.small_pages;
  return dict;
}

AlignedBuf take(BufferPool& pool, std::optional<int64_t> size_bytes, double timeout_s) {
  const int64_t size = size_bytes.value_or(pool.config().buffer_size);
  if (size < 1) throw Error(ErrorKind::config, message("size_bytes must be >= 1, not ", size));
  if (!(timeout_s >= 0)) {
    throw Error(ErrorKind::config, message("timeout_s must be >= 0, not ", timeout_s));
  }
  const NoGil no_gil;
  return pool.take(size, timeout_s, check_signals);
}

py::object detach_as_tensor(AlignedBuf& buffer) {
  if (!buffer.valid()) {
    throw Error(ErrorKind::config, "this buffer was given back or became a tensor before");
  }
  ObjectData data;
  data.begin = buffer.data();
  data.length = buffer.size();
  data.buffer = std::move(buffer);
  return bytes_tensor(std::move(data));
}

}  // namespace

void register_memory(py::module_& module) {
  py::class_<AlignedBuf>(module, "AlignedBuf",
                         "A lease on one buffer of a BufferPool. Goes back with `BufferPool.give`, "
                         "or when it is collected.")
      .def("__len__", &AlignedBuf::size)
      .def_property_readonly("is_valid", &AlignedBuf::valid,
                             "False once given back or turned into a tensor.")
      .def(
          "tensor", &detach_as_tensor,
          "The buffer as a uint8 tensor [len(self)] that views it. The lease passes to the tensor: "
          "the buffer goes back to its pool when the last view of it dies.");

  py::class_<BufferPool, std::shared_ptr<BufferPool>>(module, "BufferPool")
      .def(
          py::init([](int64_t capacity, int64_t buffer_size, int64_t alignment) {
            return std::make_shared<BufferPool>(BufferPoolConfig{capacity, buffer_size, alignment});
          }),
          py::kw_only(), py::arg("capacity"), py::arg("buffer_size"), py::arg("alignment"))
      .def_property_readonly("capacity",
                             [](const BufferPool& pool) { return pool.config().capacity; })
      .def_property_readonly("buffer_size",
                             [](const BufferPool& pool) { return pool.config().buffer_size; })
      .def_property_readonly("alignment",
                             [](const BufferPool& pool) { return pool.config().alignment; })
      .def("take", &take, py::arg("size_bytes") = py::none(), py::kw_only(),
           py::arg("timeout_s") = 30.0)
      .def(
          "give", [](BufferPool& pool, AlignedBuf& buffer) { pool.give(std::move(buffer)); },
          py::arg("buffer"))
      .def("stats", [](const BufferPool& pool) { return pool_stats(pool.stats()); });

  module.def(
      "available_memory_bytes",
      [](bool with_swap) {
        const AvailableMemory available = available_memory();
        return with_swap ? available.with_swap_bytes : available.bytes;
      },
      py::kw_only(), py::arg("with_swap") = false,
      "What this process can still allocate, cgroup limits included, in bytes.");
  module.def("available_processors", &available_processors,
             "Processors that this process may use, quotas of cgroups included.");
  module.def(
      "memory_limit_bytes", [] { return memory_limit_bytes(); },
      "The smallest memory limit of this process's cgroups, or None.");
}

}  // namespace s3io::bindings
