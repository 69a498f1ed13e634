#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/tensors.h"
#include "http/credentials.h"
#include "http/curl_transport.h"
#include "http/etag.h"
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
// (device, inode, size in bytes, modified_ns), as an ObjectVersion has them
using S3Version = std::tuple<uint64_t, uint64_t, int64_t, int64_t>;

Addressing parse_addressing(const std::string& name) {
  if (name == "auto") return Addressing::automatic;
  if (name == "path") return Addressing::path;
  if (name == "virtual") return Addressing::virtual_host;
  throw Error(ErrorKind::config, message("there is no addressing '", name, "'"));
}

milliseconds milliseconds_of(double seconds) {
  return milliseconds{static_cast<int64_t>(std::clamp(seconds, 0.0, 1e9) * 1e3)};
}

std::string user_agent() {
  const py::object version = py::module_::import("torch_s3io._version").attr("__version__");
  return message("torch_s3io/", version.cast<std::string>());
}

void stop_transports_at_exit() {
  static const bool is_registered = [] {
    py::module_::import("atexit").attr("register")(py::cpp_function([] {
      const NoGil no_gil;
      stop_shared_curl_transports();
    }));
    return true;
  }();
  static_cast<void>(is_registered);
}

std::shared_ptr<S3Objects> make_s3_objects(const std::string& endpoint, const std::string& region,
                                           const std::string& addressing, bool requester_pays,
                                           const std::string& ca_file, double connect_timeout_s,
                                           double stall_timeout_s, int max_idle_s, int max_attempts,
                                           double retry_timeout_s, double retries_per_s,
                                           int64_t part_bytes, int connections,
                                           std::shared_ptr<CredentialSource> credentials) {
  stop_transports_at_exit();
  S3Objects::Options options{.s3 = {.endpoint = endpoint,
                                    .region = region,
                                    .addressing = parse_addressing(addressing),
                                    .requester_pays = requester_pays,
                                    .http = {.ca_file = ca_file,
                                             .user_agent = user_agent(),
                                             .connect_timeout = milliseconds_of(connect_timeout_s),
                                             .stall_timeout = milliseconds_of(stall_timeout_s),
                                             .max_idle_s = max_idle_s},
                                    .max_attempts = max_attempts,
                                    .retry_timeout_s = retry_timeout_s,
                                    .retries_per_s = retries_per_s},
                             .part_bytes = part_bytes};
  const bool is_tls = endpoint.empty() || parse_endpoint(endpoint).is_tls;
  const CurlOptions transport{.connections = connections, .threads = is_tls ? 2 : 1};
  return std::make_shared<S3Objects>(std::move(options), std::move(credentials),
                                     shared_curl_transport(transport));
}

py::str text_of(const std::string& bytes) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeFSDefaultAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size())));
}

using ListedTuple = py::typing::Tuple<py::str, S3Version, py::str>;

ObjectVersion version_in(const S3Version& tuple) {
  const auto [device, inode, size_bytes, modified_ns] = tuple;
  return {device, inode, size_bytes, modified_ns};
}

S3Version tuple_of(const ObjectVersion& version) {
  return {version.device, version.inode, version.size_bytes, version.modified_ns};
}

py::typing::List<ListedTuple> list_s3_objects(S3Objects& objects, const Path& prefix,
                                              int64_t most) {
  std::vector<ListedObject> found;
  {
    const NoGil no_gil;
    found = objects.list_objects(prefix.native, check_signals, most);
  }
  const std::string bucket = message("s3://", parse_s3_path(prefix.native).bucket, "/");
  py::typing::List<ListedTuple> listed;
  for (const ListedObject& one : found) {
    const ObjectVersion version = version_of(one.size_bytes, one.etag);
    listed.append(py::make_tuple(text_of(bucket + one.key), tuple_of(version),
                                 etag_of(version).empty() ? one.etag : std::string()));
  }
  return listed;
}

std::tuple<S3Version, std::string> stat_s3_object(S3Objects& objects, const Path& path) {
  const NoGil no_gil;
  const auto object = objects.open(path.native, check_signals);
  std::string etag(object->etag());
  return {tuple_of(version_of(object->size(), etag)), std::move(etag)};
}

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
    check_whole(*object, [&] {
      read(*object, {0, data.length}, data);
      return crc32c(0, {data.begin, static_cast<size_t>(data.length)});
    });
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

  // Compared with the server's, too.
  uint32_t checksum(const std::string& path) {
    const std::shared_ptr<S3Object> object = objects_->open_whole(path, check_signals);
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
    throw Error(ErrorKind::data, message(object.path(), ": its bytes have the CRC-32C ",
                                         crc32c_in_base64(found), ", and the server says ", kept,
                                         ": the object is damaged there, or on the way"));
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

void register_s3(py::module_& module) {
  module.attr("built_with_s3") = true;
  py::class_<CredentialSource, std::shared_ptr<CredentialSource>>(
      module, "CredentialSource", "Where the credentials of an S3Objects come from.");
  module.def(
      "fixed_credentials",
      [](std::string access_key, std::string secret_key, std::string session_token) {
        Credentials credentials{std::move(access_key), std::move(secret_key),
                                std::move(session_token)};
        check_credentials(credentials);
        return fixed_credentials(std::move(credentials));
      },
      py::kw_only(), py::arg("access_key"), py::arg("secret_key"), py::arg("session_token"),
      "Always the same; without an access key requests are not signed.");
  register_s3_credentials(module);

  py::class_<S3Objects, Store, std::shared_ptr<S3Objects>>(module, "S3Objects")
      .def(py::init(&make_s3_objects), py::kw_only(), py::arg("endpoint"), py::arg("region"),
           py::arg("addressing"), py::arg("requester_pays"), py::arg("ca_file"),
           py::arg("connect_timeout_s"), py::arg("stall_timeout_s"), py::arg("max_idle_s"),
           py::arg("max_attempts"), py::arg("retry_timeout_s"), py::arg("retries_per_s"),
           py::arg("part_bytes"), py::arg("connections"), py::arg("credentials"),
           "Of this process. An empty endpoint is AWS's of the region.")
      .def("list_objects", &list_s3_objects, py::arg("prefix"), py::arg("most") = 0,
           "(path, version, ETag) of each object, by path; see `s3_version`. The ETag is empty "
           "where the version tells it. The first ones, at most 1000, where `most` is more than 0.")
      .def("stat", &stat_s3_object, py::arg("path"), "(version, ETag), by a HEAD.")
      .def(
          "honours_if_match",
          [](S3Objects& objects, const Path& path, S3Version version, double timeout_s) {
            const auto on_wait = [deadline = deadline_after(timeout_s), timeout_s] {
              check_signals();
              if (Clock::now() < deadline) return;
              throw Error(ErrorKind::read_timeout,
                          message("the server did not answer within ", timeout_s, " s"));
            };
            const NoGil no_gil;
            return objects.honours_if_match(path.native, version_in(version), on_wait);
          },
          py::arg("path"), py::arg("version"), py::kw_only(), py::arg("timeout_s"),
          "Whether the server refuses to send another version than is asked for.")
      .def(
          "know_etags",
          [](S3Objects& objects, const std::vector<std::string>& etags) {
            for (const std::string& etag : etags) objects.know_etag(etag);
          },
          py::arg("etags"), "Of versions that will be opened, and do not tell them.");

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
          [](S3Reads& reads, const Path& path) {
            const NoGil no_gil;
            return reads.checksum(path.native);
          },
          py::arg("path"));
  module.def(
      "s3_version",
      [](int64_t size_bytes, const std::string& etag) {
        return tuple_of(version_of(size_bytes, etag));
      },
      py::kw_only(), py::arg("size_bytes"), py::arg("etag"),
      "(device, inode, size in bytes, modified_ns) of an ObjectVersion.");
  register_s3_writer(module);
}

}  // namespace s3io::bindings
