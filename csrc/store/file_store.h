// Files of a mounted file system as objects: direct reads into pooled buffers.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memory/buffer_pool.h"
#include "store/file_checksum.h"
#include "store/file_objects.h"
#include "store/object_writer.h"
#include "store/range_engine.h"

namespace s3io {

struct FileSystemConfig {
  DirectMode direct_io = DirectMode::automatic;
  int64_t alignment = 0;    // of direct reads, bytes; 0: what the file system asks for
  int64_t min_io_size = 0;  // with `automatic`, shorter reads go through the page cache
  bool sync_writes = true;  // a write is complete when the bytes are on the device
  bool checksum_writes = true;
  bool enable_range_engine = true;
  RangeEngineConfig range_engine;
  std::optional<BufferPoolConfig> buffer_pool;  // none: an allocation per read

  // O_DIRECT required, and a pool of 32 page-aligned buffers of 64 MiB. (Called `direct_io` in
  // Python; here a field has that name.)
  static FileSystemConfig with_direct_io();
  // Direct reads where possible, the same pool, and 32 ranges of 4 MiB at once.
  static FileSystemConfig high_performance();
};

struct FileStoreStats {
  int64_t requests = 0;
  int64_t direct_bytes = 0;
  int64_t cached_bytes = 0;
  int64_t buffered_bytes = 0;
  int64_t retries = 0;
  int64_t short_reads = 0;
  int64_t direct_refused = 0;
  int64_t write_requests = 0;
  int64_t direct_written_bytes = 0;    // padding included
  int64_t buffered_written_bytes = 0;  // to the page cache
  int64_t write_copied_bytes = 0;      // into a buffer on the way
  int64_t write_retries = 0;
  int64_t short_writes = 0;
  int64_t direct_write_refused = 0;
  std::string engine;  // empty before the first read
  BufferPoolStats pool;
};

// Bytes of an object: a view into `buffer`.
struct ObjectData {
  AlignedBuf buffer;
  std::byte* begin = nullptr;
  int64_t length = 0;
};

// Thread-safe. All paths are errors' subjects: whatever goes wrong is an Error that names one.
//
// Note: after fork the child makes its own rings, files and buffers; the parent's are left alone.
class FileStore {
 public:
  // Throws Error(config) for nonsense. `faults`: for tests, see FaultEngine.
  FileStore(const FileSystemConfig& config, EngineKind engine,
            std::shared_ptr<const FaultPlan> faults = nullptr);
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;
  ~FileStore();

  ObjectInfo stat(const std::string& path) { return runtime_store().stat(path); }
  // Every file whose path begins with `prefix`, sorted.
  std::vector<std::string> list(const std::string& prefix) { return runtime_store().list(prefix); }
  // Throws Error(range) for a range that does not lie within the file.
  ObjectData get_range(const std::string& path, ByteRange range, const WaitCallback& on_wait);
  ObjectData get(const std::string& path, const WaitCallback& on_wait);
  // Writes the file whole or not at all; see ObjectWriter.
  WrittenObject put(const std::string& path, std::span<const std::byte> data,
                    const WaitCallback& on_wait = {});
  std::unique_ptr<ObjectWriter> writer(const std::string& path, std::optional<int64_t> size_bytes,
                                       const WaitCallback& on_wait = {},
                                       Links links = Links::follow, bool if_absent = false);

  // The CRC-32C of the file, which is read for it.
  FileChecksum checksum(const std::string& path, const WaitCallback& on_wait);

  FileStoreStats stats();
  // What an automatic setting fell back from, for the caller to warn of. Each thing is said once.
  std::vector<std::string> take_warnings();

 private:
  struct Runtime;  // what belongs to one process
  Runtime& runtime();
  Store& runtime_store();
  ObjectData read(Runtime& runtime, DirectFile& file, ByteRange range, const WaitCallback& on_wait);
  void note_fallbacks(Runtime& runtime, const DirectFile& file);

  const FileSystemConfig config_;
  const EngineKind engine_;
  const std::shared_ptr<const FaultPlan> faults_;
  std::atomic<bool> said_direct_refused_{false};
  std::atomic<bool> said_threads_{false};
  std::atomic<Runtime*> runtime_;
};

}  // namespace s3io
