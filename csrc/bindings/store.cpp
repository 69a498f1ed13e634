#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/tensors.h"
#include "bindings/writer.h"
#include "store/file_store.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

std::unique_ptr<FileStore> make_file_store(
    const std::string& direct_io, int64_t alignment, int64_t min_io_size, bool sync_writes,
    bool checksum_writes, bool enable_range_engine, int64_t chunk_size,
    int64_t max_concurrent_ranges, int64_t min_split_size, double range_timeout_s,
    std::optional<std::tuple<int64_t, int64_t, int64_t>> buffer_pool, const std::string& engine,
    std::optional<std::shared_ptr<FaultPlan>> faults) {
  FileSystemConfig config;
  config.direct_io = parse_direct_mode(direct_io);
  config.alignment = alignment;
  config.min_io_size = min_io_size;
  config.sync_writes = sync_writes;
  config.checksum_writes = checksum_writes;
  config.enable_range_engine = enable_range_engine;
  config.range_engine = {chunk_size, max_concurrent_ranges, min_split_size, range_timeout_s};
  if (buffer_pool) {
    const auto [capacity, buffer_size, pool_alignment] = *buffer_pool;
    config.buffer_pool = BufferPoolConfig{capacity, buffer_size, pool_alignment};
  }
  return std::make_unique<FileStore>(config, parse_engine_kind(engine), faults.value_or(nullptr));
}

FileSystemConfig ready_made_config(const std::string& name) {
  if (name == "default") return {};
  if (name == "direct_io") return FileSystemConfig::with_direct_io();
  if (name == "high_performance") return FileSystemConfig::high_performance();
  throw Error(ErrorKind::config, message("there is no ready-made configuration '", name, "'"));
}

const char* name_of(DirectMode mode) {
  switch (mode) {
    case DirectMode::automatic:
      return "auto";
    case DirectMode::require:
      return "require";
    case DirectMode::off:
      return "off";
  }
  return "";
}

StatsDict config_fields(const std::string& name) {
  const FileSystemConfig config = ready_made_config(name);
  StatsDict ranges;
  ranges["chunk_size"] = config.range_engine.chunk_size;
  ranges["max_concurrent_ranges"] = config.range_engine.max_concurrent_ranges;
  ranges["min_split_size"] = config.range_engine.min_split_size;
  ranges["range_timeout"] = config.range_engine.range_timeout_s;
  StatsDict fields;
  fields["direct_io"] = name_of(config.direct_io);
  fields["alignment"] = py::none();
  if (config.alignment != 0) fields["alignment"] = config.alignment;
  fields["min_io_size"] = config.min_io_size;
  fields["sync_writes"] = config.sync_writes;
  fields["checksum_writes"] = config.checksum_writes;
  fields["enable_range_engine"] = config.enable_range_engine;
  fields["range_engine"] = ranges;
  fields["buffer_pool"] = py::none();
  if (config.buffer_pool) {
    StatsDict pool;
    pool["capacity"] = config.buffer_pool->capacity;
    pool["buffer_size"] = config.buffer_pool->buffer_size;
    pool["alignment"] = config.buffer_pool->alignment;
    fields["buffer_pool"] = pool;
  }
  return fields;
}

// Says once where an automatic setting fell back, to whoever called FileStore.get.
void warn_of_fallbacks(FileStore& store) {
  for (const std::string& text : store.take_warnings()) warn(text);
}

py::object get(FileStore& store, const Path& path) {
  ObjectData data;
  {
    const NoGil no_gil;
    data = store.get(path.native, check_signals);
  }
  warn_of_fallbacks(store);
  return bytes_tensor(std::move(data));
}

py::object get_range(FileStore& store, const Path& path, int64_t offset, int64_t length) {
  ObjectData data;
  {
    const NoGil no_gil;
    data = store.get_range(path.native, ByteRange::checked(offset, length, path.native),
                           check_signals);
  }
  warn_of_fallbacks(store);
  return bytes_tensor(std::move(data));
}

py::typing::List<py::str> list(FileStore& store, const Path& prefix) {
  std::vector<std::string> paths;
  {
    const NoGil no_gil;
    paths = store.list(prefix.native);
  }
  py::typing::List<py::str> names;
  for (const std::string& path :
       paths) {  // bytes that are no text become surrogates, as in os.listdir
    names.append(py::reinterpret_steal<py::str>(
        PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()))));
  }
  return names;
}

std::unique_ptr<Writer> make_writer(FileStore& store, const Path& path,
                                    std::optional<int64_t> size_bytes, bool follow_links,
                                    bool if_absent) {
  const Links links = follow_links ? Links::follow : Links::replace;
  const NoGil no_gil;
  return std::make_unique<Writer>(
      store.writer(path.native, size_bytes, check_signals, links, if_absent));
}

// (size in bytes, checksum)
std::tuple<int64_t, uint32_t> checksum(FileStore& store, const Path& path) {
  const NoGil no_gil;
  const FileChecksum sum = store.checksum(path.native, check_signals);
  return {sum.size_bytes, sum.crc32c};
}

StatsDict store_stats(FileStore& store) {
  const FileStoreStats stats = store.stats();
  StatsDict dict;
  dict["engine"] = stats.engine;
  dict["requests"] = stats.requests;
  dict["direct_bytes"] = stats.direct_bytes;
  dict["cached_bytes"] = stats.cached_bytes;
  dict["buffered_bytes"] = stats.buffered_bytes;
  dict["retries"] = stats.retries;
  dict["short_reads"] = stats.short_reads;
  dict["direct_refused"] = stats.direct_refused;
  dict["write_requests"] = stats.write_requests;
  dict["direct_written_bytes"] = stats.direct_written_bytes;
  dict["buffered_written_bytes"] = stats.buffered_written_bytes;
  dict["write_copied_bytes"] = stats.write_copied_bytes;
  dict["write_retries"] = stats.write_retries;
  dict["short_writes"] = stats.short_writes;
  dict["direct_write_refused"] = stats.direct_write_refused;
  dict["pool_taken"] = stats.pool.taken;
  dict["pool_waited"] = stats.pool.waited;
  dict["pool_wait_s"] = static_cast<double>(stats.pool.wait_ns) * 1e-9;
  dict["pool_in_use"] = stats.pool.in_use;
  dict["pool_peak"] = stats.pool.peak;
  dict["pool_oversize"] = stats.pool.oversize;
  dict["huge_pages"] = stats.pool.huge_pages;
  dict["small_pages"] = stats.pool.small_pages;
  return dict;
}

}  // namespace

void register_store(py::module_& module) {
  register_writer(module);
  py::class_<ObjectInfo>(module, "ObjectInfo",
                         "What a store knows of an object without reading it.")
      .def_property_readonly("size_bytes",
                             [](const ObjectInfo& info) { return info.version.size_bytes; })
      .def_property_readonly("modified_ns",
                             [](const ObjectInfo& info) { return info.version.modified_ns; })
      .def_readonly("direct_alignment", &ObjectInfo::block_bytes)
      .def("__repr__", [](const ObjectInfo& info) {
        return message("ObjectInfo(size_bytes=", info.version.size_bytes,
                       ", modified_ns=", info.version.modified_ns,
                       ", direct_alignment=", info.block_bytes, ")");
      });

  py::class_<FileStore>(module, "FileStore")
      .def(py::init(&make_file_store), py::kw_only(), py::arg("direct_io"), py::arg("alignment"),
           py::arg("min_io_size"), py::arg("sync_writes"), py::arg("checksum_writes"),
           py::arg("enable_range_engine"), py::arg("chunk_size"), py::arg("max_concurrent_ranges"),
           py::arg("min_split_size"), py::arg("range_timeout_s"), py::arg("buffer_pool"),
           py::arg("engine"), py::arg("faults"))
      .def("get", &get, py::arg("path"))
      .def("get_range", &get_range, py::arg("path"), py::arg("offset"), py::arg("length"))
      .def(
          "stat",
          [](FileStore& store, const Path& path) {
            const NoGil no_gil;
            return store.stat(path.native);
          },
          py::arg("path"))
      .def("list", &list, py::arg("prefix"))
      .def("writer", &make_writer, py::arg("path"), py::arg("size_bytes"), py::arg("follow_links"),
           py::arg("if_absent"))
      .def("checksum", &checksum, py::arg("path"))
      .def("stats", &store_stats);

  module.def("file_system_config", &config_fields, py::arg("name"),
             "Fields of a ready-made FileSystemConfig: 'default', 'direct_io', "
             "'high_performance'.");
  module.def("uring_unavailable_reason", &uring_unavailable_reason,
             "Empty if io_uring works here, else the reason why not.");
}

}  // namespace s3io::bindings
