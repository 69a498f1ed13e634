#include "store/file_cache.h"

#include <sys/resource.h>

#include <algorithm>

namespace s3io {
namespace {

size_t default_max_files() {
  constexpr rlim_t kMost = 1024;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 64;
  return static_cast<size_t>(std::clamp<rlim_t>(limit.rlim_cur / 8, 1, kMost));
}

}  // namespace

FileCache::FileCache(DirectMode mode, int64_t min_alignment, int64_t max_files)
    : mode_(mode),
      min_alignment_(min_alignment),
      max_files_(max_files > 0 ? static_cast<size_t>(max_files) : default_max_files()) {}

std::shared_ptr<DirectFile> FileCache::open(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return open_locked(path);
}

std::shared_ptr<DirectFile> FileCache::open_current(const std::string& path) {
  const ObjectVersion current = inspect_file(path).version;
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(path);
  if (found != entries_.end() && found->second.file->version() != current) {
    uses_.erase(found->second.use);
    entries_.erase(found);
  }
  return open_locked(path);
}

std::shared_ptr<DirectFile> FileCache::open_locked(const std::string& path) {
  const auto found = entries_.find(path);
  if (found != entries_.end()) {
    uses_.splice(uses_.begin(), uses_, found->second.use);
    return found->second.file;
  }
  auto file = std::make_shared<DirectFile>(path, mode_, min_alignment_);
  if (entries_.size() >= max_files_) {
    const std::string oldest = *uses_.back();
    uses_.pop_back();
    entries_.erase(oldest);
  }
  const auto inserted = entries_.emplace(path, Entry{file, {}}).first;
  uses_.push_front(&inserted->first);
  inserted->second.use = uses_.begin();
  return file;
}

}  // namespace s3io
