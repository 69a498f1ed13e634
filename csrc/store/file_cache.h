// Open files, by path, bounded: the least recently used one is closed first, once nobody reads it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/crew.h"
#include "io/direct_file.h"
#include "store/store.h"

namespace s3io {

class FileCache {
 public:
  // `max_files` 0: an eighth of what RLIMIT_NOFILE allows, at most 1024. A file takes up to two
  // descriptors.
  FileCache(DirectMode mode, int64_t min_alignment, int64_t max_files = 0);

  int64_t max_files() const { return static_cast<int64_t>(max_files_); }
  // Opens `path` unless it is open already. The caller keeps the file open as long as it needs it.
  // Thread-safe.
  std::shared_ptr<DirectFile> open(const std::string& path);
  // The same of many: those that are not open are opened by several threads, if `crew` is not null.
  // Appends one for each, a DirectFile. Returns how many were not open.
  size_t open_all(std::span<const ObjectToOpen> wanted, Crew* crew,
                  std::vector<std::shared_ptr<Object>>& out);
  // Appends those that are not open, as many as may be.
  void find_closed(std::span<const ObjectToOpen> wanted, std::vector<ObjectToOpen>& out);
  // Opens it unless it is open already. Where that fails, whoever opens it next is told.
  void try_to_open(const std::string& path) noexcept;
  // Opens `path` anew if what is open is no longer what the path names.
  std::shared_ptr<DirectFile> open_current(const std::string& path);

 private:
  struct Entry {
    std::shared_ptr<DirectFile> file;
    std::list<const std::string*>::iterator use;
  };

  // Null: it is not open.
  std::shared_ptr<DirectFile> find_locked(const std::string& path);
  std::shared_ptr<DirectFile> open_locked(const std::string& path);
  // Unless another one is open by now, which it then gives.
  std::shared_ptr<DirectFile> keep_locked(const std::string& path,
                                          std::shared_ptr<DirectFile> file);

  const DirectMode mode_;
  const int64_t min_alignment_;
  const size_t max_files_;
  std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;
  std::list<const std::string*> uses_;  // most recent first; points at the keys of entries_
};

}  // namespace s3io
