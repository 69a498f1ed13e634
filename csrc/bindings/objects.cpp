#include <cstring>
#include <memory>
#include <span>

#include "bindings/bindings.h"
#include "bindings/buffers.h"
#include "reader/record_source.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

static_assert(sizeof(ObjectVersion) == 4 * sizeof(uint64_t));

Objects make_objects(const py::buffer& paths, const py::buffer& path_ends,
                     const py::buffer& versions) {
  const std::shared_ptr<KeptBuffers> held = hold_buffers();
  const int64_t count = path_ends.request().size;
  const int64_t path_bytes = paths.request().size;
  const auto* names = reinterpret_cast<const char*>(kept_bytes(paths, path_bytes, *held));
  const auto* ends = static_cast<const uint64_t*>(kept_array(path_ends, count, 8, *held));
  const void* numbers = kept_array(versions, 4 * count, 8, *held);
  return {.paths = std::make_shared<ObjectNames>(std::span(names, static_cast<size_t>(path_bytes)),
                                                 std::span(ends, static_cast<size_t>(count)), held),
          .versions = {static_cast<const ObjectVersion*>(numbers), static_cast<size_t>(count)},
          .owner = held};
}

}  // namespace

void register_objects(py::module_& module) {
  py::class_<Objects>(module, "Objects")
      .def(
          py::init(&make_objects), py::kw_only(), py::arg("paths"), py::arg("path_ends"),
          py::arg("versions"),
          "Columns, which are kept: the paths of n objects, one after the other, uint8; where each "
          "ends, uint64 [n]; versions, uint64 [n, 4]: device, inode, size in bytes, time of "
          "change in ns.");
}

}  // namespace s3io::bindings
