#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/writer.h"
#include "http/s3_objects.h"
#include "http/s3_upload.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

constexpr int64_t kLeastPartBytes = int64_t{5} << 20;  // says S3
using Headers = std::vector<std::pair<std::string, std::string>>;

S3UploadOptions upload_options(const S3Objects& objects, std::optional<int64_t> size_bytes,
                               bool if_absent, bool checksums, const Headers& headers) {
  S3UploadOptions options{.object = {.if_absent = if_absent, .checksums = checksums},
                          .part_bytes = std::max(objects.part_bytes(), kLeastPartBytes),
                          .size_bytes = size_bytes};
  for (const auto& [name, value] : headers) options.object.headers.push_back({name, value});
  return options;
}

std::unique_ptr<Writer> make_s3_writer(S3Objects& objects, const Path& path,
                                       std::optional<int64_t> size_bytes, bool if_absent,
                                       bool checksums, const Headers& headers) {
  const NoGil no_gil;
  return std::make_unique<Writer>(std::make_unique<S3Upload>(
      objects.client(), path.native,
      upload_options(objects, size_bytes, if_absent, checksums, headers), check_signals));
}

std::tuple<int64_t, std::optional<uint32_t>, bool> put_s3_object(S3Objects& objects,
                                                                 const Path& path,
                                                                 const py::buffer& data,
                                                                 bool if_absent, bool checksums,
                                                                 const Headers& headers) {
  const py::buffer_info info = data.request();
  const std::span bytes(static_cast<const std::byte*>(info.ptr),
                        static_cast<size_t>(info.size * info.itemsize));
  const NoGil no_gil;
  const WrittenObject written = put_object(
      objects.client(), path.native, bytes,
      upload_options(objects, std::nullopt, if_absent, checksums, headers), check_signals);
  return {written.size_bytes, written.crc32c, written.checksum_kept};
}

}  // namespace

void register_s3_writer(py::module_& module) {
  module.def("s3_writer", &make_s3_writer, py::arg("objects"), py::arg("path"), py::kw_only(),
             py::arg("size_bytes"), py::arg("if_absent"), py::arg("checksums"), py::arg("headers"),
             "An object of S3 to write in chunks. headers: (name, value) of the object.");
  module.def("s3_put", &put_s3_object, py::arg("objects"), py::arg("path"), py::arg("data"),
             py::kw_only(), py::arg("if_absent"), py::arg("checksums"), py::arg("headers"),
             "(size in bytes, CRC-32C, False) of the object that contiguous bytes become.");
  module.def(
      "s3_remove",
      [](S3Objects& objects, const Path& path) {
        const NoGil no_gil;
        remove_object(*objects.client(), path.native, check_signals);
      },
      py::arg("objects"), py::arg("path"), "Nothing happens where there is none.");
}

}  // namespace s3io::bindings
