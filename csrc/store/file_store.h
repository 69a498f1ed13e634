// Files of a mounted file system as objects: direct reads into pooled buffers.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memory/buffer_pool.h"
#include "store/file_cache.h"
#include "store/object_store.h"
#include "store/range_engine.h"

namespace s3io {

struct FileSystemConfig {
  DirectMode direct_io = DirectMode::automatic;
  int64_t alignment = 0;    // of direct reads, bytes; 0: what the file system asks for
  int64_t min_io_size = 0;  // with `automatic`, shorter reads go through the page cache
  bool sync_writes = true;  // `put` returns when the bytes are on the device
  bool enable_range_engine = true;
  RangeEngineConfig range_engine;
  std::optional<BufferPoolConfig> buffer_pool;  // none: an allocation per read
};

struct FileStoreStats {
  int64_t requests = 0;
  int64_t direct_bytes = 0;
  int64_t cached_bytes = 0;
  int64_t buffered_bytes = 0;
  int64_t retries = 0;
  int64_t short_reads = 0;
  int64_t direct_refused = 0;
  std::string engine;  // empty before the first read
  BufferPoolStats pool;
};

// Note: after fork the child makes its own rings, files and buffers; the parent's are left alone.
class FileStore final : public ObjectStore {
 public:
  // Throws Error(config) for nonsense.
  FileStore(const FileSystemConfig& config, EngineKind engine);
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;
  ~FileStore() override;

  ObjectInfo stat(const std::string& path) override;
  ObjectData get_range(const std::string& path, ByteRange range,
                       const WaitCallback& on_wait) override;
  ObjectData get(const std::string& path, const WaitCallback& on_wait) override;
  std::vector<std::string> list(const std::string& prefix) override;
  // Writes the file whole or not at all.
  void put(const std::string& path, std::span<const std::byte> data) const;

  FileStoreStats stats();

 private:
  struct Runtime;  // what belongs to one process
  Runtime& runtime();
  ObjectData read(Runtime& runtime, DirectFile& file, ByteRange range,
                  const WaitCallback& on_wait) const;

  const FileSystemConfig config_;
  const EngineKind engine_;
  std::atomic<Runtime*> runtime_;
};

}  // namespace s3io
