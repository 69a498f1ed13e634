#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/path_pattern.h"
#include "bindings/bindings.h"
#include "bindings/buffers.h"
#include "bindings/columns.h"
#include "bindings/path.h"
#include "format/column_text.h"
#include "format/folder_labels.h"
#include "io/file_inspection.h"
#include "io/folder_scan.h"
#include "io/head_reader.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

using ListingProgress = std::optional<py::typing::Callable<void(py::int_, py::int_)>>;
using InspectionProgress = std::optional<py::typing::Callable<void(py::int_)>>;

static_assert(sizeof(ObjectVersion) == 4 * sizeof(uint64_t));

py::array_t<uint64_t> as_numbers(const std::vector<ObjectVersion>& versions, py::handle owner) {
  const auto* numbers = reinterpret_cast<const uint64_t*>(versions.data());
  return view_of(numbers, 4 * versions.size(), owner);
}

std::shared_ptr<FolderScan> scan(const Path& folder, const Path& pattern, int threads, bool settles,
                                 const ListingProgress& progress) {
  const auto on_progress = [&](int64_t files, int64_t folders) {
    check_signals();
    if (progress) with_gil([&] { (*progress)(files, folders); });
  };
  const NoGil no_gil;
  return std::make_shared<FolderScan>(scan_folder(folder.native, PathPattern(pattern.native),
                                                  {.threads = threads, .settles = settles},
                                                  on_progress));
}

// Paths in columns that Python has, for the length of a call.
class NamesOfCall {
 public:
  NamesOfCall(const py::buffer& paths, const py::buffer& path_ends)
      : held_(hold_buffers()), names_(make(paths, path_ends, held_)) {}

  const ObjectNames& operator*() const { return names_; }
  std::vector<std::string_view> each() const {
    std::vector<std::string_view> all(static_cast<size_t>(names_.count()));
    for (int64_t number = 0; number < names_.count(); ++number) {
      all[static_cast<size_t>(number)] = names_[number];
    }
    return all;
  }

 private:
  static ObjectNames make(const py::buffer& paths, const py::buffer& path_ends,
                          const std::shared_ptr<KeptBuffers>& held) {
    const int64_t bytes = paths.request().size;
    const int64_t count = path_ends.request().size;
    const auto* begin = reinterpret_cast<const char*>(kept_bytes(paths, bytes, *held));
    const auto* ends = static_cast<const uint64_t*>(kept_array(path_ends, count, 8, *held));
    return {{begin, static_cast<size_t>(bytes)}, {ends, static_cast<size_t>(count)}, held};
  }

  std::shared_ptr<KeptBuffers> held_;
  ObjectNames names_;
};

using Numbers64 = py::array_t<int64_t, py::array::c_style>;

// One for each path.
std::span<const int64_t> one_each(const Numbers64& numbers, const ObjectNames& names) {
  if (numbers.size() != names.count()) {
    throw Error(ErrorKind::config, "one number for each path is needed");
  }
  return {numbers.data(), static_cast<size_t>(numbers.size())};
}

// Paths that follow each other, a NUL between two of them.
std::vector<std::string> absolute_paths(std::string_view joined, const std::string& current) {
  std::vector<std::string> paths;
  while (true) {
    const size_t end = joined.find('\0');
    paths.push_back(absolute_path(current, joined.substr(0, end)));
    if (end == std::string_view::npos) return paths;
    joined.remove_prefix(end + 1);
  }
}

std::shared_ptr<FoundFiles> inspect_paths(const py::bytes& joined, const Path& current, int threads,
                                          const InspectionProgress& progress) {
  const auto text = static_cast<std::string_view>(joined);
  const auto on_progress = [&](int64_t done) {
    check_signals();
    if (progress) with_gil([&] { (*progress)(done); });
  };
  const NoGil no_gil;
  const std::vector<std::string> paths = absolute_paths(text, current.native);
  std::vector<FileInfo> infos(paths.size());
  inspect_files(paths, infos, threads, on_progress);
  auto found = std::make_shared<FoundFiles>();
  for (size_t number = 0; number < paths.size(); ++number) {
    found->add(paths[number], infos[number].version, infos[number].direct_alignment);
  }
  return found;
}

std::pair<py::array_t<uint8_t>, Numbers64> read_heads_of(const py::buffer& paths,
                                                         const py::buffer& path_ends,
                                                         const Numbers64& offsets, int64_t length,
                                                         int threads) {
  constexpr int64_t kMostLength = int64_t{1} << 20;
  const NamesOfCall names(paths, path_ends);
  const std::span<const int64_t> wanted = one_each(offsets, *names);
  if (length < 1 || length > kMostLength) {
    throw Error(ErrorKind::range, message("heads of ", length, " bytes are too long"));
  }
  const int64_t count = offsets.size();
  py::array_t<uint8_t> data({count, length});
  Numbers64 counts(count);
  const std::span out(reinterpret_cast<std::byte*>(data.mutable_data()),
                      static_cast<size_t>(count * length));
  const std::span found(counts.mutable_data(), static_cast<size_t>(count));
  {
    const NoGil no_gil;
    read_heads(names.each(), wanted, length, out, found, threads);
  }
  return {std::move(data), std::move(counts)};
}

int64_t changed_folder(const py::buffer& paths, const py::buffer& path_ends,
                       const Numbers64& modified_ns, int threads) {
  const NamesOfCall names(paths, path_ends);
  const std::span<const int64_t> times = one_each(modified_ns, *names);
  const NoGil no_gil;
  return find_changed_folder(names.each(), times, threads);
}

std::pair<Numbers64, py::typing::List<py::bytes>> folder_labels(const py::buffer& paths,
                                                                const py::buffer& path_ends,
                                                                const Numbers64& name_bytes,
                                                                bool is_parent) {
  const NamesOfCall names(paths, path_ends);
  const std::span<const int64_t> lengths = one_each(name_bytes, *names);
  FolderLabels found;
  {
    const NoGil no_gil;
    found = label_by_folders(*names, lengths, is_parent ? LabelFolder::last : LabelFolder::first);
  }
  Numbers64 labels(static_cast<py::ssize_t>(found.labels.size()), found.labels.data());
  py::typing::List<py::bytes> classes;
  for (const std::string& name : found.classes) classes.append(py::bytes(name));
  return {std::move(labels), std::move(classes)};
}

py::bytes lines(const py::buffer& paths, const py::buffer& path_ends, const Numbers64& left_out,
                int64_t first, int64_t last) {
  const NamesOfCall names(paths, path_ends);
  const std::span<const int64_t> numbers = one_each(left_out, *names);
  if (first < 0 || first > last || last > (*names).count()) {
    throw Error(ErrorKind::range, "there are fewer names than are asked for");
  }
  return json_lines(*names, numbers, first, last);
}

}  // namespace

void register_folders(py::module_& module) {
  py::class_<FoundFiles, std::shared_ptr<FoundFiles>>(module, "FoundFiles",
                                                      "Columns: see csrc/io/folder_scan.h.")
      .def("__len__", &FoundFiles::count)
      .def_property_readonly("paths",
                             [](const py::object& owner) {
                               const auto& paths = owner.cast<const FoundFiles&>().paths;
                               return view_of(reinterpret_cast<const uint8_t*>(paths.data()),
                                              paths.size(), owner);
                             })
      .def_property_readonly("path_ends",
                             [](const py::object& owner) {
                               const auto& ends = owner.cast<const FoundFiles&>().ends;
                               return view_of(ends.data(), ends.size(), owner);
                             })
      .def_property_readonly(
          "versions",
          [](const py::object& owner) {
            return as_numbers(owner.cast<const FoundFiles&>().versions, owner);
          },
          "4 numbers of each: device, inode, size in bytes, time of change in ns.")
      .def_property_readonly("direct_alignments", [](const py::object& owner) {
        const auto& alignments = owner.cast<const FoundFiles&>().direct_alignments;
        return view_of(alignments.data(), alignments.size(), owner);
      });

  module.def(
      "scan_folder",
      [](const Path& folder, const Path& pattern, int threads, bool settles,
         const ListingProgress& progress) {
        const std::shared_ptr<FolderScan> found = scan(folder, pattern, threads, settles, progress);
        return std::pair(std::make_shared<FoundFiles>(std::move(found->files)),
                         std::make_shared<FoundFiles>(std::move(found->folders)));
      },
      py::kw_only(), py::arg("folder"), py::arg("pattern"), py::arg("threads"), py::arg("settles"),
      py::arg("progress"),
      "(the files below the folder that the pattern means, the folders that were listed). "
      "`progress` gets the number of both so far.");
  module.def("inspect_paths", &inspect_paths, py::kw_only(), py::arg("paths"), py::arg("current"),
             py::arg("threads"), py::arg("progress"),
             "Files whose paths follow each other, a NUL between two of them; relative ones are "
             "below `current`. `progress` gets the number of those that are done.");
  module.def("read_heads", &read_heads_of, py::kw_only(), py::arg("paths"), py::arg("path_ends"),
             py::arg("offsets"), py::arg("length"), py::arg("threads"),
             "(`length` bytes of each file from its offset on, [n, length]; how many there were).");
  module.def("changed_folder", &changed_folder, py::kw_only(), py::arg("paths"),
             py::arg("path_ends"), py::arg("modified_ns"), py::arg("threads"),
             "The first folder that has another time of change, or is gone; -1: none.");
  module.def("folder_labels", &folder_labels, py::kw_only(), py::arg("paths"), py::arg("path_ends"),
             py::arg("name_bytes"), py::arg("is_parent"),
             "(label of each file, names of the classes): by the first folder of its name, or by "
             "the folder that it lies in.");
  module.def(
      "common_folder_bytes",
      [](const py::buffer& paths, const py::buffer& path_ends) {
        return common_folder_bytes(*NamesOfCall(paths, path_ends));
      },
      py::kw_only(), py::arg("paths"), py::arg("path_ends"),
      "How much of all paths is the folder that holds all of them.");
  module.def("json_lines", &lines, py::kw_only(), py::arg("paths"), py::arg("path_ends"),
             py::arg("left_out"), py::arg("first"), py::arg("last"),
             "Of some paths, without so many of their first bytes: a line of JSON for each.");
  module.def(
      "count_repeated",
      [](const py::buffer& paths, const py::buffer& path_ends, const Numbers64& left_out) {
        const NamesOfCall names(paths, path_ends);
        const std::span<const int64_t> numbers = one_each(left_out, *names);
        return count_repeated(*names, numbers);
      },
      py::kw_only(), py::arg("paths"), py::arg("path_ends"), py::arg("left_out"),
      "How many paths are the same as one before them, without so many of their first bytes.");
}

}  // namespace s3io::bindings
