#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/s3_version.h"
#include "bindings/tensors.h"
#include "http/credentials.h"
#include "http/curl_transport.h"
#include "http/etag.h"
#include "http/s3_objects.h"
#include "http/s3_range_reader.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

Addressing parse_addressing(const std::string& name) {
  if (name == "auto") return Addressing::automatic;
  if (name == "path") return Addressing::path;
  if (name == "virtual") return Addressing::virtual_host;
  throw Error(ErrorKind::config, message("there is no addressing '", name, "'"));
}

// Rounded up: what is more than 0 stays so.
milliseconds milliseconds_of(double seconds) {
  return milliseconds{static_cast<int64_t>(std::ceil(std::clamp(seconds, 0.0, 1e9) * 1e3))};
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

  register_s3_reads(module);
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
