#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/path.h"
#include "io/refused_calls.h"
#include "store/composite_store.h"
#include "store/file_objects.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// As the arguments of ObjectVersion.
using VersionTuple = std::tuple<uint64_t, uint64_t, int64_t, int64_t>;
// (error_number, short_read, lost)
using FaultTuple = std::tuple<int, bool, bool>;

std::shared_ptr<FaultPlan> make_faults(uint64_t seed,
                                       const std::map<int64_t, FaultTuple>& by_number,
                                       double probability, const std::vector<FaultTuple>& random,
                                       bool reorder, int64_t failing_wait,
                                       const std::map<int64_t, int>& by_call) {
  const auto fault = [](const FaultTuple& tuple) {
    return Fault{std::get<0>(tuple), std::get<1>(tuple), std::get<2>(tuple)};
  };
  FaultPlan plan{.seed = seed,
                 .fault_probability = probability,
                 .reorder = reorder,
                 .failing_wait = failing_wait,
                 .by_call = by_call};
  for (const auto& [number, tuple] : by_number) plan.by_number[number] = fault(tuple);
  for (const FaultTuple& tuple : random) plan.random_faults.push_back(fault(tuple));
  return std::make_shared<FaultPlan>(std::move(plan));
}

std::shared_ptr<FileObjects> make_file_objects(const std::string& direct, const std::string& engine,
                                               int64_t alignment,
                                               std::optional<std::shared_ptr<FaultPlan>> faults) {
  return std::make_shared<FileObjects>(
      FileObjects::Options{.direct = parse_direct_mode(direct),
                           .engine = parse_engine_kind(engine),
                           .min_alignment = alignment > 1 ? alignment : 0,
                           .max_alignment = alignment,
                           .faults = faults.value_or(nullptr)});
}

}  // namespace

void register_files(py::module_& module) {
  py::class_<FaultPlan, std::shared_ptr<FaultPlan>>(module, "FaultPlan",
                                                    "For tests: see FaultEngine.")
      .def(py::init(&make_faults), py::kw_only(), py::arg("seed") = 0,
           py::arg("by_number") = std::map<int64_t, FaultTuple>(), py::arg("probability") = 0.0,
           py::arg("random") = std::vector<FaultTuple>(), py::arg("reorder") = false,
           py::arg("failing_wait") = -1, py::arg("by_call") = std::map<int64_t, int>())
      .def(
          "release", [](const FaultPlan& plan) { plan.hang->release(); },
          "Lets go of the system call that hangs (-2 in by_call).");

  py::class_<ObjectVersion>(module, "ObjectVersion")
      .def(py::init<uint64_t, uint64_t, int64_t, int64_t>(), py::arg("device"), py::arg("inode"),
           py::arg("size_bytes"), py::arg("modified_ns"));

  py::class_<Store, std::shared_ptr<Store>>(module, "Store");
  py::class_<FileObjects, Store, std::shared_ptr<FileObjects>>(module, "FileObjects")
      .def(py::init(&make_file_objects), py::kw_only(), py::arg("direct"), py::arg("engine"),
           py::arg("alignment"), py::arg("faults"),
           "alignment: of direct reads, in bytes; 1: none is direct.");

  py::class_<CompositeStore, Store, std::shared_ptr<CompositeStore>>(module, "CompositeStore")
      .def(py::init<std::map<std::string, std::shared_ptr<Store>>>(), py::arg("stores"),
           "By what paths begin with; \"\": those without a scheme.");

  module.def(
      "inspect_files",
      [](const std::vector<Path>& paths) {
        std::vector<std::pair<VersionTuple, int64_t>> infos;
        infos.reserve(paths.size());
        const NoGil no_gil;
        for (const Path& path : paths) {
          const auto [now, direct_alignment] = inspect_file(path.native);
          infos.emplace_back(VersionTuple{now.device, now.inode, now.size_bytes, now.modified_ns},
                             direct_alignment);
        }
        return infos;
      },
      py::arg("paths"),
      "For each path (what its ObjectVersion is made of, the alignment of direct reads or 0).");
  module.def(
      "refused_calls",
      [] {
        std::vector<std::pair<std::string, int>> refused;
        for (const RefusedCall& call : refused_calls()) {
          refused.emplace_back(call.name, call.error_number);
        }
        return refused;
      },
      "System calls with a substitute that fail as under a filter (seccomp), and their errno.");
  module.def(
      "direct_alignment",
      [](const Path& path, const std::string& direct) {
        const NoGil no_gil;
        const DirectFile file(path.native, parse_direct_mode(direct), 0);
        return file.can_read_direct() ? file.alignment() : 0;
      },
      py::arg("path"), py::arg("direct"),
      "Opens the file: the alignment of its direct reads, or 0 where the file system refuses "
      "them.");
}

}  // namespace s3io::bindings
