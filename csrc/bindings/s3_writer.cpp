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
#include "http/s3_uploads.h"

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
  const int64_t size_bytes = info.size * info.itemsize;
  S3UploadOptions options = upload_options(objects, size_bytes, if_absent, checksums, headers);
  if (size_bytes > options.part_bytes) {  // a Writer says what may be left of it
    Writer writer([&] {
      const NoGil no_gil;
      return std::make_unique<S3Upload>(objects.client(), path.native, std::move(options),
                                        check_signals);
    }());
    writer.write(data, false);
    return writer.finish();
  }
  const std::span bytes(static_cast<const std::byte*>(info.ptr),
                        static_cast<size_t>(info.size * info.itemsize));
  const NoGil no_gil;
  const WrittenObject written =
      put_object(objects.client(), path.native, bytes, std::move(options), check_signals);
  return {written.size_bytes, written.crc32c, written.checksum_kept};
}

// As check_signals, but for so long.
WaitCallback signals_until(double timeout_s) {
  return [deadline = deadline_after(timeout_s), timeout_s] {
    check_signals();
    if (Clock::now() < deadline) return;
    throw Error(ErrorKind::write_timeout,
                message("the server did not answer within ", timeout_s, " s"));
  };
}

// (path, id, age in seconds)
using UploadTuple = py::typing::Tuple<py::str, py::str, std::optional<int64_t>>;

py::typing::List<UploadTuple> list_open_uploads(S3Objects& objects, const Path& prefix) {
  std::vector<OpenUpload> found;
  {
    const NoGil no_gil;
    found = list_uploads(*objects.client(), prefix.native, check_signals);
  }
  const auto text_of = [](const std::string& bytes) {
    return py::reinterpret_steal<py::str>(
        PyUnicode_DecodeFSDefaultAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size())));
  };
  py::typing::List<UploadTuple> uploads;
  for (const OpenUpload& one : found) {
    uploads.append(py::make_tuple(text_of(one.path), text_of(one.id), one.age_s));
  }
  return uploads;
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
      [](S3Objects& objects, const Path& path, double timeout_s) {
        const NoGil no_gil;
        remove_object(*objects.client(), path.native, signals_until(timeout_s));
      },
      py::arg("objects"), py::arg("path"), py::kw_only(), py::arg("timeout_s"),
      "Nothing happens where there is none.");
  module.def(
      "s3_uploads", &list_open_uploads, py::arg("objects"), py::arg("prefix"),
      "(path, id, age in s) of uploads in parts that nobody has finished, sorted. The age is None "
      "where the server does not say what time it is.");
  module.def(
      "s3_abort_upload",
      [](S3Objects& objects, const Path& path, const Path& id, double timeout_s) {
        const NoGil no_gil;
        abort_upload(*objects.client(), parse_s3_path(path.native), id.native,
                     signals_until(timeout_s));
      },
      py::arg("objects"), py::arg("path"), py::arg("id"), py::kw_only(), py::arg("timeout_s"),
      "Nothing happens where there is no such upload.");
}

}  // namespace s3io::bindings
