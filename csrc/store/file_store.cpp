#include "store/file_store.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/align.h"
#include "base/fork_owned.h"

namespace s3io {
namespace {

int64_t checked_alignment(const FileSystemConfig& config) {
  if (config.alignment != 0 &&
      (!is_power_of_two(config.alignment) || config.alignment > kHugePageBytes)) {
    throw Error(ErrorKind::config,
                message("FileSystemConfig.alignment must be a power of two of at most 2 MiB, not ",
                        config.alignment));
  }
  if (config.min_io_size < 0) {
    throw Error(ErrorKind::config,
                message("FileSystemConfig.min_io_size must be >= 0, not ", config.min_io_size));
  }
  return config.alignment;
}

}  // namespace

FileSystemConfig FileSystemConfig::with_direct_io() {
  return {.direct_io = DirectMode::require,
          .range_engine = {},
          .buffer_pool = BufferPoolConfig{
              .capacity = 32, .buffer_size = int64_t{64} << 20, .alignment = kPageBytes}};
}

FileSystemConfig FileSystemConfig::high_performance() {
  FileSystemConfig config = with_direct_io();
  config.direct_io = DirectMode::automatic;
  config.range_engine.chunk_size = int64_t{4} << 20;
  config.range_engine.max_concurrent_ranges = 32;
  config.range_engine.min_split_size = int64_t{8} << 20;
  return config;
}

struct FileStore::Runtime {
  Runtime(const FileSystemConfig& config, EngineKind engine,
          const std::shared_ptr<const FaultPlan>& faults)
      : files({.direct = config.direct_io,
               .engine = engine,
               .min_alignment = checked_alignment(config),
               .min_direct_bytes = config.min_io_size,
               .faults = faults}),
        ranges(files, {.config = config.range_engine,
                       .splits = config.enable_range_engine,
                       .alignment = std::max<int64_t>(config.alignment, kPageBytes)}) {
    if (config.buffer_pool) pool.emplace(*config.buffer_pool);
    writes = std::make_shared<WriteEngine>(
        WriteEngine::Options{.direct = config.direct_io,
                             .min_alignment = config.alignment,
                             .sync = config.sync_writes,
                             .checksums = config.checksum_writes,
                             .timeout_s = config.range_engine.range_timeout_s,
                             .engine = engine,
                             .faults = faults},
        pool ? std::make_shared<BufferPool>(*pool) : nullptr);
  }

  const HomeProcess home = {};
  FileObjects files;
  RangeEngine ranges;
  std::optional<BufferPool> pool;
  std::shared_ptr<WriteEngine> writes;  // shared with the writers
  std::mutex mutex;                     // guards what follows
  std::vector<std::string> warnings;
};

FileStore::FileStore(const FileSystemConfig& config, EngineKind engine,
                     std::shared_ptr<const FaultPlan> faults)
    : config_(config),
      engine_(engine),
      faults_(std::move(faults)),
      runtime_(new Runtime(config, engine, faults_)) {}

FileStore::~FileStore() {
  // In a forked child its rings and threads are the parent's: left alone.
  const Runtime* runtime = runtime_.load();
  if (runtime->home.is_here()) delete runtime;
}

FileStore::Runtime& FileStore::runtime() {
  Runtime* current = runtime_.load();
  if (current->home.is_here()) return *current;
  auto fresh = std::make_unique<Runtime>(config_, engine_, faults_);
  if (runtime_.compare_exchange_strong(current, fresh.get())) return *fresh.release();
  return *current;  // another thread of this child was first
}

Store& FileStore::runtime_store() { return runtime().files; }

ObjectData FileStore::get(const std::string& path, const WaitCallback& on_wait) {
  Runtime& mine = runtime();
  const std::shared_ptr<DirectFile> file = mine.files.open_file(path);
  return read(mine, *file, {0, file->size()}, on_wait);
}

ObjectData FileStore::get_range(const std::string& path, ByteRange range,
                                const WaitCallback& on_wait) {
  Runtime& mine = runtime();
  const std::shared_ptr<DirectFile> file = mine.files.open_file(path);
  if (range.end() > file->size()) {
    throw Error(ErrorKind::range, message(path, ": bytes ", range.offset, " to ", range.end(),
                                          " lie beyond its end at ", file->size()));
  }
  return read(mine, *file, range, on_wait);
}

ObjectData FileStore::read(Runtime& mine, DirectFile& file, ByteRange range,
                           const WaitCallback& on_wait) {
  std::optional<BufferPool>& pool = mine.pool;
  const int64_t alignment = file.alignment();
  const int64_t head = range.offset & (alignment - 1);
  const int64_t needed = align_up(head + std::max<int64_t>(range.length, 1), alignment);
  if (pool && pool->config().alignment < alignment) {
    throw Error(ErrorKind::config,
                message(file.path(), ": direct reads need an alignment of ", alignment,
                        "; raise BufferPoolConfig.alignment (now ", pool->config().alignment, ")"));
  }
  ObjectData data;
  const double timeout_s = config_.range_engine.range_timeout_s;
  data.buffer =
      pool ? pool->take(needed, timeout_s, on_wait) : AlignedBuf::allocate(needed, alignment);
  data.begin = data.buffer.data() + head;
  data.length = range.length;
  if (range.length > 0) mine.ranges.read(file, range, data.begin, data.buffer, on_wait);
  file.check_unchanged();
  note_fallbacks(mine, file);
  return data;
}

void FileStore::note_fallbacks(Runtime& mine, const DirectFile& file) {
  const bool refused = config_.direct_io == DirectMode::automatic && !file.can_read_direct();
  if (refused && !said_direct_refused_.exchange(true)) {
    const std::lock_guard lock(mine.mutex);
    mine.warnings.push_back(
        message(file.path(),
                ": the file system refuses O_DIRECT: direct_io='auto' reads it through the "
                "page cache; FileSystemConfig(direct_io='off') does so without a warning"));
  }
  if (engine_ != EngineKind::automatic || said_threads_) return;
  const std::string reason = mine.files.fallback_reason();
  if (reason.empty() || said_threads_.exchange(true)) return;
  const std::lock_guard lock(mine.mutex);
  mine.warnings.push_back(message(reason, ": reading with threads instead"));
}

std::vector<std::string> FileStore::take_warnings() {
  Runtime& mine = runtime();
  const std::lock_guard lock(mine.mutex);
  return std::exchange(mine.warnings, {});
}

WrittenObject FileStore::put(const std::string& path, std::span<const std::byte> data,
                             const WaitCallback& on_wait) {
  const auto writing = writer(path, static_cast<int64_t>(data.size()), on_wait);
  writing->write(data, on_wait);
  return writing->finish(on_wait);
}

std::unique_ptr<ObjectWriter> FileStore::writer(const std::string& path,
                                                std::optional<int64_t> size_bytes,
                                                const WaitCallback& on_wait, Links links,
                                                bool if_absent) {
  return std::make_unique<ObjectWriter>(path, size_bytes, runtime().writes, on_wait, links,
                                        if_absent);
}

FileChecksum FileStore::checksum(const std::string& path, const WaitCallback& on_wait) {
  Store& files = runtime().files;
  return checksum_of_object(files, files.open(path), config_.range_engine.range_timeout_s, on_wait);
}

FileStoreStats FileStore::stats() {
  Runtime& mine = runtime();
  const ReadCounters& reads = mine.ranges.counters();
  FileStoreStats stats;
  stats.requests = reads.requests;
  stats.direct_bytes = reads.direct_bytes;
  stats.cached_bytes = reads.cached_bytes;
  stats.buffered_bytes = reads.buffered_bytes;
  stats.retries = reads.retries;
  stats.short_reads = reads.short_reads;
  stats.direct_refused = reads.direct_refused;
  const WriteCounters& writes = mine.writes->counters();
  stats.write_requests = writes.requests;
  stats.direct_written_bytes = writes.direct_bytes;
  stats.buffered_written_bytes = writes.buffered_bytes;
  stats.write_copied_bytes = writes.copied_bytes;
  stats.write_retries = writes.retries;
  stats.short_writes = writes.short_writes;
  stats.direct_write_refused = writes.direct_refused;
  stats.engine = mine.ranges.engine_name();
  if (mine.pool) stats.pool = mine.pool->stats();
  return stats;
}

}  // namespace s3io
