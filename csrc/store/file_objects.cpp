#include "store/file_objects.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/processors.h"
#include "io/read_queue.h"

namespace s3io {
namespace {

constexpr size_t kManyToOpen = 4;

}  // namespace

FileObjects::FileObjects(Options options)
    : options_(std::move(options)), files_(options_.direct, options_.min_alignment) {}

ObjectInfo FileObjects::stat(const std::string& path) {
  const FileInfo info = inspect_file(path);
  return {info.version, info.direct_alignment};
}

std::vector<std::string> FileObjects::list(const std::string& prefix) {
  namespace fs = std::filesystem;
  const size_t slash = prefix.rfind('/');
  const std::string folder =
      slash == std::string::npos ? "." : (slash == 0 ? "/" : prefix.substr(0, slash));
  std::vector<std::string> paths;
  try {
    for (auto entry = fs::recursive_directory_iterator(folder);
         entry != fs::recursive_directory_iterator(); ++entry) {
      std::string path = entry->path().string();
      if (slash == std::string::npos) path = path.substr(2);  // "./"
      // Do not descend into what cannot match.
      const size_t common = std::min(path.size(), prefix.size());
      if (path.compare(0, common, prefix, 0, common) != 0) {
        entry.disable_recursion_pending();
      } else if (path.size() >= prefix.size() && entry->is_regular_file()) {
        paths.push_back(std::move(path));
      }
    }
  } catch (const fs::filesystem_error& error) {
    throw error_from_errno(error.code().value(), "list", folder);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::shared_ptr<DirectFile> FileObjects::open_file(const std::string& path) {
  return files_.open_current(path);
}

std::shared_ptr<Object> FileObjects::open(const std::string& path, const ObjectVersion& version) {
  std::shared_ptr<DirectFile> file = files_.open(path);
  check(*file, version);
  return file;
}

size_t FileObjects::open_all(std::span<const ObjectToOpen> wanted,
                             std::vector<std::shared_ptr<Object>>& out) {
  const size_t first = out.size();
  const std::unique_lock lock(opening_mutex_, std::try_to_lock);
  Opening* const opening = wanted.size() < kManyToOpen ? nullptr : this->opening(lock);
  size_t opened = 0;
  if (opening != nullptr) {
    opening->crew.finish();
    opened = opening->soon.size();
    opening->soon.clear();
  }
  opened += files_.open_all(wanted, opening == nullptr ? nullptr : &opening->crew, out);
  for (size_t index = 0; index < wanted.size(); ++index) {
    check(static_cast<DirectFile&>(*out[first + index]), wanted[index].version);
  }
  return opened < kManyToOpen ? 0 : opened;
}

void FileObjects::open_soon(std::span<const ObjectToOpen> wanted) {
  const std::unique_lock lock(opening_mutex_, std::try_to_lock);
  Opening* const opening = this->opening(lock);
  if (opening == nullptr) return;
  opening->crew.finish();
  opening->soon.clear();
  files_.find_closed(wanted, opening->soon);
  opening->crew.begin(opening->soon.size(), [this, opening](size_t index) {
    files_.try_to_open(opening->soon[index].path);
  });
}

FileObjects::Opening* FileObjects::opening(const std::unique_lock<std::mutex>& lock) {
  if (!lock.owns_lock() || !opening_.is_here()) return nullptr;
  if (opening_ == nullptr) opening_ = std::make_unique<Opening>();
  return &*opening_;
}

void FileObjects::check(DirectFile& file, const ObjectVersion& version) const {
  const std::string what = file.difference_from(version);
  if (!what.empty()) {
    throw Error(ErrorKind::file_changed,
                message(file.path(), ": is not as it was when the data set was made: ", what,
                        "; make the data set anew, or restore the file"));
  }
  const int64_t most = options_.max_alignment;
  if (most > 0 && file.can_read_direct() && file.alignment() > most) {
    if (!file.can_read_buffered()) {
      throw Error(ErrorKind::direct_io,
                  message(file.path(), ": direct reads need an alignment of ", file.alignment(),
                          ", more than when the data set was made; make the data set anew"));
    }
    file.refuse_direct();
  }
}

std::unique_ptr<RangeReader> FileObjects::make_reader(const ReaderOptions& options,
                                                      ReadCounters& counters) {
  std::string reason;
  auto engine = make_engine(
      {.kind = options_.engine, .depth = options.depth, .any_thread = options.any_thread}, &reason);
  {
    const std::lock_guard lock(mutex_);
    fallback_reason_ = reason;
  }
  // Faults are the engine's: with them nothing goes past it.
  const bool shares = options.sharing_processes > 0 && options_.faults == nullptr;
  return std::make_unique<ReadQueue>(
      with_faults(std::move(engine), options_.faults.get()),
      ReadQueueOptions{.chunk_bytes = options.chunk_bytes,
                       .min_direct_bytes = options_.min_direct_bytes,
                       .copiers = shares ? copiers_for(options.sharing_processes) : 1,
                       .min_shared_bytes = options.min_shared_bytes,
                       .fill_block_bytes = options.fill_block_bytes},
      &counters);
}

std::string FileObjects::fallback_reason() {
  const std::lock_guard lock(mutex_);
  return fallback_reason_;
}

}  // namespace s3io
