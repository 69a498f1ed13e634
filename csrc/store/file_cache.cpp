#include "store/file_cache.h"

#include <sys/resource.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

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

size_t FileCache::open_all(std::span<const ObjectToOpen> wanted, Crew* crew,
                           std::vector<std::shared_ptr<Object>>& out) {
  const size_t first = out.size();
  std::vector<size_t> missing;  // allocates nothing where all are open
  {
    const std::lock_guard lock(mutex_);
    for (const ObjectToOpen& one : wanted) {
      out.push_back(find_locked(one.path));
      if (out.back() == nullptr) missing.push_back(out.size() - 1 - first);
    }
  }
  if (missing.empty()) return 0;
  std::vector<std::shared_ptr<DirectFile>> opened(missing.size());
  std::vector<std::optional<Error>> errors(missing.size());
  const auto open_one = [&](size_t number) {
    try {
      opened[number] =
          std::make_shared<DirectFile>(wanted[missing[number]].path, mode_, min_alignment_);
    } catch (const Error& error) {
      errors[number] = error;
    } catch (const std::exception& error) {
      errors[number] = Error(ErrorKind::out_of_memory, message("cannot open: ", error.what()));
    }
  };
  if (crew != nullptr) {
    crew->run(missing.size(), open_one);
  } else {
    for (size_t number = 0; number < missing.size(); ++number) open_one(number);
  }
  const std::lock_guard lock(mutex_);
  for (size_t number = 0; number < missing.size(); ++number) {
    if (errors[number]) throw Error(*errors[number]);
    const size_t index = missing[number];
    out[first + index] = keep_locked(wanted[index].path, std::move(opened[number]));
  }
  return missing.size();
}

void FileCache::find_closed(std::span<const ObjectToOpen> wanted, std::vector<ObjectToOpen>& out) {
  const std::lock_guard lock(mutex_);
  for (const ObjectToOpen& one : wanted) {
    if (out.size() == max_files_) return;
    if (find_locked(one.path) == nullptr) out.push_back(one);
  }
}

void FileCache::try_to_open(const std::string& path) noexcept {
  try {
    auto file = std::make_shared<DirectFile>(path, mode_, min_alignment_);
    const std::lock_guard lock(mutex_);
    keep_locked(path, std::move(file));
  } catch (const std::exception&) {
    // who opens it next is told
  }
}

std::shared_ptr<DirectFile> FileCache::find_locked(const std::string& path) {
  const auto found = entries_.find(path);
  if (found == entries_.end()) return nullptr;
  uses_.splice(uses_.begin(), uses_, found->second.use);
  return found->second.file;
}

std::shared_ptr<DirectFile> FileCache::open_locked(const std::string& path) {
  std::shared_ptr<DirectFile> file = find_locked(path);
  if (file != nullptr) return file;
  return keep_locked(path, std::make_shared<DirectFile>(path, mode_, min_alignment_));
}

std::shared_ptr<DirectFile> FileCache::keep_locked(const std::string& path,
                                                   std::shared_ptr<DirectFile> file) {
  if (std::shared_ptr<DirectFile> open = find_locked(path)) return open;
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
