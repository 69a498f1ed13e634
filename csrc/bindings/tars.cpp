#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/columns.h"
#include "bindings/path.h"
#include "format/member_names.h"
#include "format/tar_chain.h"
#include "reader/object_scan.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

using Numbers = py::array_t<int64_t>;

template <typename Owner, std::vector<int64_t> Owner::*column>
Numbers column_of(const py::object& owner) {
  const std::vector<int64_t>& values = owner.cast<const Owner&>().*column;
  return view_of(values.data(), values.size(), owner);
}

template <typename Owner, std::string Owner::*texts>
py::array_t<uint8_t> texts_of(const py::object& owner) {
  const std::string& every = owner.cast<const Owner&>().*texts;
  return view_of(reinterpret_cast<const uint8_t*>(every.data()), every.size(), owner);
}

py::typing::List<py::bytes> extensions_of(const SampleNames& names) {
  py::typing::List<py::bytes> extensions;
  for (const std::string& extension : names.extensions) extensions.append(py::bytes(extension));
  return extensions;
}

using Versions = std::optional<std::vector<ObjectVersion>>;
using Progress = std::optional<py::typing::Callable<void(py::int_, py::int_)>>;

std::vector<ObjectToScan> objects_to_scan(const std::vector<Path>& paths, Versions versions) {
  if (versions && versions->size() != paths.size()) {
    throw Error(ErrorKind::config,
                message("there are ", paths.size(), " paths, but ", versions->size(), " versions"));
  }
  std::vector<ObjectToScan> objects(paths.size());
  for (size_t number = 0; number < paths.size(); ++number) {
    objects[number].path = paths[number].native;
    if (versions) objects[number].version = (*versions)[number];
  }
  return objects;
}

std::tuple<std::vector<std::shared_ptr<TarMembers>>, int64_t, int64_t> scan_tars(
    std::shared_ptr<Store> store, const std::vector<Path>& paths, Versions versions, int depth,
    double read_timeout_s, const Progress& progress) {
  std::vector<ObjectToScan> objects = objects_to_scan(paths, std::move(versions));
  std::vector<std::shared_ptr<TarMembers>> members(objects.size());
  const auto make_chain = [&](size_t number, const std::string& path, int64_t size_bytes) {
    members[number] = std::make_shared<TarMembers>();
    return std::make_unique<TarChain>(path, size_bytes, *members[number]);
  };
  const auto on_progress = [&](const ScanProgress& now) {
    check_signals();
    if (progress) with_gil([&] { (*progress)(now.objects, now.bytes); });
  };
  ScanCounts counts;
  {
    const NoGil no_gil;
    counts = scan_objects(std::move(store), std::move(objects), make_chain,
                          {.depth = depth, .read_timeout_s = read_timeout_s}, on_progress);
  }
  return {std::move(members), counts.reads, counts.bytes};
}

std::unique_ptr<SampleNames> group(const TarMembers& members, const Path& path,
                                   size_t most_extensions) {
  const NoGil no_gil;
  return std::make_unique<SampleNames>(group_member_names(path.native, members, most_extensions));
}

}  // namespace

void register_tars(py::module_& module) {
  py::class_<SampleNames>(module, "SampleNames", "See csrc/format/member_names.h.")
      .def_property_readonly("sample_of", &column_of<SampleNames, &SampleNames::sample_of>)
      .def_property_readonly("extension_of", &column_of<SampleNames, &SampleNames::extension_of>)
      .def_property_readonly("extensions", &extensions_of)
      .def_property_readonly("keys", &texts_of<SampleNames, &SampleNames::keys>)
      .def_property_readonly("key_ends", &column_of<SampleNames, &SampleNames::key_ends>);

  py::class_<TarMembers, std::shared_ptr<TarMembers>>(
      module, "TarMembers", "The files of a tar archive: see csrc/format/tar_members.h.")
      .def("__len__", &TarMembers::count)
      .def_property_readonly("offsets", &column_of<TarMembers, &TarMembers::offsets>)
      .def_property_readonly("sizes", &column_of<TarMembers, &TarMembers::sizes>)
      .def_property_readonly("name_ends", &column_of<TarMembers, &TarMembers::name_ends>)
      .def_property_readonly("names", &texts_of<TarMembers, &TarMembers::names>)
      .def_property_readonly("has_end", [](const TarMembers& members) { return members.has_end; })
      .def("group", &group, py::kw_only(), py::arg("path"), py::arg("most_extensions"),
           "Its samples; `path` is for errors.");

  module.def("scan_tars", &scan_tars, py::kw_only(), py::arg("store"), py::arg("paths"),
             py::arg("versions"), py::arg("depth"), py::arg("read_timeout_s"), py::arg("progress"),
             "(the members of each archive, reads, bytes read). `progress` gets the number of "
             "archives that are done, and bytes that are passed.");
}

}  // namespace s3io::bindings
