#include "bindings/writer.h"

#include <pybind11/stl.h>

#include <span>

#include "base/crc32c.h"
#include "bindings/bindings.h"
#include "bindings/path.h"
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

// Note: with the GIL, as whatever it lets go of may belong to Python.
Writer::~Writer() {
  const py::error_scope others;
  try {
    const bool was_open = writer_->is_open();
    {
      const NoGil no_gil;  // waits for writes in flight
      writer_->cancel();
    }
    if (was_open) warn_of(writer_->left_behind());
  } catch (py::error_already_set& error) {  // where warnings are errors, or the interpreter ends
    error.discard_as_unraisable("a writer that nobody finished");
  }
}

template <typename Work>
void Writer::run(Work work) {
  if (!home_.is_here()) {
    throw Error(ErrorKind::config,
                message(writer_->path(), ": this writer belongs to the parent process"));
  }
  std::vector<std::shared_ptr<const void>> returned;  // let go of with the GIL, but unlocked
  const NoGil no_gil;
  const std::lock_guard lock(mutex_);
  try {
    work();
  } catch (const Error&) {
    returned = writer_->take_returned();
    throw;
  } catch (...) {
    returned = writer_->take_returned();
    with_gil([this] { warn_of(writer_->left_behind()); });
    throw;
  }
  returned = writer_->take_returned();
}

// Errors of the core have it in their text; Ctrl-C has none, and cancel() no error.
void Writer::warn_of(const std::string& left_behind) const {
  if (!left_behind.empty()) warn(message(writer_->path(), ": ", left_behind));
}

void Writer::check_waiting() const {
  check_signals();
  if (cancelling_) {
    throw Error(ErrorKind::config, message(writer_->path(), ": this writer was cancelled"));
  }
}

void Writer::write(const py::buffer& data, bool copy) {
  const auto info = std::make_shared<py::buffer_info>(data.request());
  const std::span<const std::byte> bytes = bytes_of(*info);
  run([&] {
    const auto on_wait = [this] { check_waiting(); };
    if (copy) {
      writer_->write(bytes, on_wait);
    } else {
      writer_->lend(bytes, info, on_wait);
    }
  });
}

void Writer::write_rows(const py::buffer& rows, int64_t row_bytes, int64_t stride_bytes) {
  const py::buffer_info info = rows.request();
  const std::span<const std::byte> bytes = bytes_of(info);
  run([&] { writer_->write_rows(bytes, row_bytes, stride_bytes, [this] { check_waiting(); }); });
}

std::vector<uint32_t> Writer::write_samples(const IntList& starts, const IntList& sizes,
                                            const std::vector<ColumnTuple>& columns) {
  const SampleParts samples(starts, sizes, columns);
  std::vector<uint32_t> sums;
  run([&] {
    const auto on_wait = [this] { check_waiting(); };
    sums = write_parts(*writer_, samples.parts(), samples.pieces(), on_wait);
  });
  return sums;
}

std::tuple<int64_t, std::optional<uint32_t>, bool> Writer::finish() {
  WrittenObject written;
  run([&] { written = writer_->finish([this] { check_waiting(); }); });
  warn_of(written.left_behind);
  return {written.size_bytes, written.crc32c, written.checksum_kept};
}

void Writer::cancel() {
  if (!home_.is_here()) return;
  cancelling_ = true;
  std::string left_behind;
  run([&] {
    if (!writer_->is_open()) return;
    writer_->cancel();
    left_behind = writer_->left_behind();
  });
  warn_of(left_behind);
}

int64_t Writer::size() {
  int64_t size = 0;
  run([&] { size = writer_->size(); });
  return size;
}

void register_writer(py::module_& module) {
  py::class_<Writer>(module, "ObjectWriter")
      .def("write", &Writer::write, py::arg("data"), py::arg("copy"))
      .def("write_rows", &Writer::write_rows, py::arg("rows"), py::arg("row_bytes"),
           py::arg("stride_bytes"))
      .def("write_samples", &Writer::write_samples, py::arg("starts"), py::arg("sizes"),
           py::arg("columns"),
           "Appends samples from these bytes of the file on, zeros before them, and gives the "
           "CRC-32C of each. A column is (begins within each sample, pieces); pieces is a list of "
           "buffers, or (buffer, begins, ends) within it.")
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
      [](const Path& path) {
        const NoGil no_gil;
        return kept_checksum(path.native);
      },
      py::arg("path"), "The checksum that a file keeps of its content, if it does.");
  module.def(
      "remove_abandoned",
      [](const Path& folder) {
        const NoGil no_gil;
        remove_abandoned(folder.native);
      },
      py::arg("folder"), "Removes the temporary files of dead writers.");
}

}  // namespace s3io::bindings
