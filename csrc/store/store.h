// The seam between those who read and the places where objects lie: a store opens objects, and
// makes the readers that fetch their bytes. FileObjects is one: files of a mounted file system.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/range_reader.h"

namespace s3io {

// Called every few milliseconds while a call waits; throws to give up.
using WaitCallback = std::function<void()>;

struct ObjectInfo {
  ObjectVersion version;
  int64_t block_bytes = 0;  // of reads that go past the page cache; 0: there are none
};

struct ObjectToOpen {
  std::string path;
  ObjectVersion version;
};

struct ReaderOptions {
  int depth = 16;                          // reads in flight
  int64_t chunk_bytes = int64_t{1} << 20;  // most bytes of one read; a multiple of all blocks
  bool any_thread = false;                 // else only the one that makes it may use it
  // What is at hand on this machine is copied by several threads, from ranges of this length on;
  // so many processes share the processors. 0: by the calling thread alone.
  int sharing_processes = 0;
  int64_t min_shared_bytes = 0;
  // What is not at hand is brought there in blocks of this size, a power of two; 0: it is not.
  int64_t fill_block_bytes = 0;
};

// Thread-safe. Whatever goes wrong is an Error that names the path.
class Store {
 public:
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;

  virtual ObjectInfo stat(const std::string& path) = 0;
  // Every object whose path begins with `prefix`, sorted.
  virtual std::vector<std::string> list(const std::string& prefix) = 0;
  // The object as it is now. The caller keeps it open as long as it needs it.
  virtual std::shared_ptr<Object> open(const std::string& path) = 0;
  // This version of it, or Error(file_changed). What is open already is not looked at again.
  virtual std::shared_ptr<Object> open(const std::string& path, const ObjectVersion& version) = 0;
  // The same of several, which may be opened at once: appends one for each, in this order. Returns
  // how many it would have been worth to name before, to `open_soon`.
  virtual size_t open_all(std::span<const ObjectToOpen> wanted,
                          std::vector<std::shared_ptr<Object>>& out) {
    for (const ObjectToOpen& one : wanted) out.push_back(open(one.path, one.version));
    return 0;
  }
  // These will be opened next: the store may begin to, meanwhile. What goes wrong with one is told
  // when it is opened.
  virtual void open_soon(std::span<const ObjectToOpen> /*wanted*/) {}
  // Objects that may be open at once; whoever needs more at once opens them all the same.
  virtual int64_t max_open_objects() const = 0;
  // Counts in `counters`, which outlives it. Its store does as well.
  virtual std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options,
                                                   ReadCounters& counters) = 0;
};

}  // namespace s3io
