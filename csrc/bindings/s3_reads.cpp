#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/byte_range.h"
#include "base/crc32c.h"
#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/s3_version.h"
#include "bindings/tensors.h"
#include "http/s3_new_object.h"
#include "http/s3_objects.h"
#include "http/s3_range_reader.h"
#include "memory/buffer_pool.h"
#include "store/file_checksum.h"
#include "store/range_engine.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// Each request has its own end: this one is for what nobody has thought of.
constexpr double kLongestReadS = 3600;

// Reads for a caller that waits, as FileStore's; of one process. Any thread.
class S3Reads {
 public:
  S3Reads(std::shared_ptr<S3Objects> objects,
          std::optional<std::tuple<int64_t, int64_t, int64_t>> pool, int depth)
      : objects_(std::move(objects)),
        ranges_(*objects_, {.config = {.max_concurrent_ranges = depth,
                                       .min_split_size = 0,
                                       .range_timeout_s = kLongestReadS},
                            .alignment = 1}) {
    if (!pool) return;
    const auto [capacity, buffer_size, alignment] = *pool;
    pool_.emplace(BufferPoolConfig{capacity, buffer_size, alignment});
  }

  // As it is now. Compared with the checksum that the server has of it, if any.
  ObjectData read_whole(const std::string& path) {
    const std::shared_ptr<S3Object> object = objects_->open_whole(path, check_signals);
    ObjectData data = take(object->size());
    const auto fill = [&] { read(*object, {0, data.length}, data); };
    if (object->crc32c().empty()) {
      fill();
    } else {
      check_whole(*object, [&] {
        fill();
        return crc32c(0, {data.begin, static_cast<size_t>(data.length)});
      });
    }
    return data;
  }

  // Of this version, or of the one that is there now. What lies beyond the end is left out where
  // `clips`, else Error(range).
  ObjectData read(const std::string& path, ByteRange range, std::optional<S3Version> version,
                  bool clips) {
    const std::shared_ptr<Object> object = open(path, version);
    if (clips) {
      range.offset = std::min(range.offset, object->size());
      range.length = std::min(range.length, object->size() - range.offset);
    } else {
      check_within(*object, range);
    }
    ObjectData data = take(range.length);
    read(*object, range, data);
    return data;
  }

  // Fills the memory. Where `is_lost` is true afterwards, some of it may yet be written into.
  void read_into(const std::string& path, int64_t offset, std::span<std::byte> into,
                 std::optional<S3Version> version, bool& is_lost) {
    const std::shared_ptr<Object> object = open(path, version);
    const ByteRange range = ByteRange::checked(offset, std::ssize(into), path);
    check_within(*object, range);
    if (into.empty()) return;
    AlignedBuf token = AlignedBuf::allocate(kCacheLineBytes, kCacheLineBytes);
    try {
      ranges_.read(*object, range, into.data(), token, check_signals);
    } catch (...) {
      is_lost = !token.valid();
      throw;
    }
  }

  // Compared with the server's, where `compares`.
  uint32_t checksum(const std::string& path, bool compares) {
    const std::shared_ptr<S3Object> object =
        compares ? objects_->open_whole(path, check_signals) : objects_->open(path, check_signals);
    return check_whole(*object, [&] {
      return checksum_of_object(*objects_, object, kLongestReadS, check_signals).crc32c;
    });
  }

 private:
  static constexpr double kPoolTimeoutS = 30;

  // `read` gives the CRC-32C of what came: a bit may have flipped on the way, or at the server.
  template <typename Read>
  static uint32_t check_whole(const S3Object& object, const Read& read) {
    const std::string& kept = object.crc32c();
    uint32_t found = read();
    if (kept.empty() || crc32c_in_base64(found) == kept) return found;
    found = read();  // once more: the way is not the object's fault
    if (crc32c_in_base64(found) == kept) return found;
    throw Error(ErrorKind::data,
                message(object.path(), ": its bytes have the CRC-32C ", crc32c_in_base64(found),
                        ", and the server says another "
                        "one: the object is damaged there, or on the way"));
  }

  ObjectData take(int64_t length) {
    ObjectData data;
    const int64_t needed = std::max<int64_t>(length, 1);
    data.buffer = pool_ ? pool_->take(needed, kPoolTimeoutS, check_signals)
                        : AlignedBuf::allocate(needed, kCacheLineBytes);
    data.begin = data.buffer.data();
    data.length = length;
    return data;
  }

  void read(Object& object, ByteRange range, ObjectData& data) {
    if (range.length > 0) ranges_.read(object, range, data.begin, data.buffer, check_signals);
  }

  static void check_within(const Object& object, ByteRange range) {
    if (range.end() <= object.size()) return;
    throw Error(ErrorKind::range, message(object.path(), ": bytes ", range.offset, " to ",
                                          range.end(), " lie beyond its end at ", object.size()));
  }

  std::shared_ptr<Object> open(const std::string& path, std::optional<S3Version> version) {
    if (!version) return objects_->open(path, check_signals);
    return objects_->open(path, version_in(*version));
  }

  const std::shared_ptr<S3Objects> objects_;
  RangeEngine ranges_;
  std::optional<BufferPool> pool_;
};

py::object read_s3(S3Reads& reads, const Path& path, int64_t offset, std::optional<int64_t> length,
                   std::optional<S3Version> version, bool clips) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  ObjectData data;
  {
    const NoGil no_gil;
    const ByteRange range = ByteRange::checked(
        offset, length ? *length : kMost - std::max<int64_t>(offset, 0), path.native);
    data = reads.read(path.native, range, version, clips);
  }
  return bytes_tensor(std::move(data));
}

py::object read_whole_s3(S3Reads& reads, const Path& path) {
  ObjectData data;
  {
    const NoGil no_gil;
    data = reads.read_whole(path.native);
  }
  return bytes_tensor(std::move(data));
}

void read_s3_into(S3Reads& reads, const Path& path, int64_t offset, const py::buffer& into,
                  std::optional<S3Version> version) {
  auto info = std::make_unique<py::buffer_info>(into.request(true));
  if (PyBuffer_IsContiguous(info->view(), 'C') == 0) {
    throw Error(ErrorKind::config, "only memory that lies together, in C order, is filled");
  }
  const std::span bytes(static_cast<std::byte*>(info->ptr),
                        static_cast<size_t>(info->size * info->itemsize));
  bool is_lost = false;
  try {
    const NoGil no_gil;
    reads.read_into(path.native, offset, bytes, version, is_lost);
  } catch (...) {
    if (is_lost) static_cast<void>(info.release());  // with the memory
    throw;
  }
}

}  // namespace

void register_s3_reads(py::module_& module) {
  py::class_<S3Reads>(module, "S3Reads")
      .def(py::init<std::shared_ptr<S3Objects>,
                    std::optional<std::tuple<int64_t, int64_t, int64_t>>, int>(),
           py::kw_only(), py::arg("objects"), py::arg("buffer_pool"), py::arg("depth"),
           "buffer_pool: (capacity, buffer_size, alignment).")
      .def("read_whole", &read_whole_s3, py::arg("path"),
           "A uint8 tensor of the object as it is now, as the server's checksum of it says.")
      .def("read", &read_s3, py::arg("path"), py::arg("offset"), py::arg("length"), py::kw_only(),
           py::arg("version") = py::none(), py::arg("clips") = false,
           "A uint8 tensor. version: see `s3_version`; else the one that is there now.")
      .def("read_into", &read_s3_into, py::arg("path"), py::arg("offset"), py::arg("into"),
           py::kw_only(), py::arg("version") = py::none(), "The same, into contiguous memory.")
      .def(
          "checksum",
          [](S3Reads& reads, const Path& path, bool compares) {
            const NoGil no_gil;
            return reads.checksum(path.native, compares);
          },
          py::arg("path"), py::kw_only(), py::arg("compares") = true,
          "CRC-32C of the object as it is now, compared with the server's, if any.");
}

}  // namespace s3io::bindings
