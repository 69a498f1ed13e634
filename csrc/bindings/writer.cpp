#include "bindings/writer.h"

#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <span>

#include "base/crc32c.h"
#include "bindings/bindings.h"
#include "store/file_checksum.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// While `info` lives.
std::span<const std::byte> bytes_of(const py::buffer_info& info) {
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0) {
    throw Error(ErrorKind::config, "only bytes that lie together, in C order, are taken");
  }
  return {static_cast<const std::byte*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
}

}  // namespace

Writer::~Writer() {
  const NoGil no_gil;  // waits for writes in flight
  writer_.reset();
}

void Writer::check_waiting() const {
  check_signals();
  if (cancelling_) {
    throw Error(ErrorKind::config, message(writer_->path(), ": this writer was cancelled"));
  }
}

void Writer::write(const py::buffer& data) {
  const py::buffer_info info = data.request();
  const std::span<const std::byte> bytes = bytes_of(info);
  const NoGil no_gil;
  const std::lock_guard lock(mutex_);
  writer_->write(bytes, [this] { check_waiting(); });
}

void Writer::write_rows(const py::buffer& rows, int64_t row_bytes, int64_t stride_bytes) {
  const py::buffer_info info = rows.request();
  const std::span<const std::byte> bytes = bytes_of(info);
  const NoGil no_gil;
  const std::lock_guard lock(mutex_);
  writer_->write_rows(bytes, row_bytes, stride_bytes, [this] { check_waiting(); });
}

std::tuple<int64_t, std::optional<uint32_t>, bool> Writer::finish() {
  const NoGil no_gil;
  const std::lock_guard lock(mutex_);
  const WrittenObject written = writer_->finish([this] { check_waiting(); });
  return {written.size_bytes, written.crc32c, written.checksum_kept};
}

void Writer::cancel() {
  const NoGil no_gil;
  cancelling_ = true;
  const std::lock_guard lock(mutex_);
  writer_->cancel();
}

int64_t Writer::size() {
  const NoGil no_gil;
  const std::lock_guard lock(mutex_);
  return writer_->size();
}

void register_writer(py::module_& module) {
  py::class_<Writer>(module, "ObjectWriter")
      .def("write", &Writer::write, py::arg("data"))
      .def("write_rows", &Writer::write_rows, py::arg("rows"), py::arg("row_bytes"),
           py::arg("stride_bytes"))
      .def("finish", &Writer::finish)
      .def("cancel", &Writer::cancel)
      .def_property_readonly("size", &Writer::size);

  module.def(
      "crc32c",
      [](const py::buffer& data, uint32_t crc) {
        const py::buffer_info info = data.request();
        const std::span<const std::byte> bytes = bytes_of(info);
        const NoGil no_gil;
        return crc32c(crc, bytes);
      },
      py::arg("data"), py::arg("crc") = 0,
      "The CRC-32C of contiguous bytes, or of those that `crc` is of, followed by them.");
  module.def("crc32c_method", &crc32c_method, "'sse4.2', 'armv8' or 'tables'.");
  module.def(
      "kept_checksum",
      [](const std::filesystem::path& path) {
        const NoGil no_gil;
        return kept_checksum(path.native());
      },
      py::arg("path"), "The checksum that a file keeps of its content, if it does.");
  module.def(
      "remove_abandoned",
      [](const std::filesystem::path& folder) {
        const NoGil no_gil;
        remove_abandoned(folder.native());
      },
      py::arg("folder"), "Removes the temporary files of dead writers.");
}

}  // namespace s3io::bindings
