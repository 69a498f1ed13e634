#include "io/folder_scan.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <ctime>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "io/direct_file.h"
#include "io/file_status.h"

namespace s3io {
namespace {

// Names of one folder that a thread looks at, while others take the next ones.
constexpr size_t kNamesAtOnce = 1024;
// For each thread. While as many wait, who lists names looks at them himself.
constexpr size_t kMostTasks = 4;
constexpr int kMostThreads = 1024;
// Ways by links to one folder. Of folders that link to each other there are as many as their number
// has permutations.
constexpr int64_t kMostWays = 100;
// The clock of file systems stands still for as long as 10 ms.
constexpr int64_t kSettlingNs = 50'000'000;

struct Ancestor {
  uint64_t device = 0;
  uint64_t inode = 0;
  std::shared_ptr<const Ancestor> above = {};
};

struct FolderToList {
  std::string path;
  PathPattern::Parts parts = 0;
  std::shared_ptr<const Ancestor> above = {};
};

struct OpenFolder {
  explicit OpenFolder(const std::string& name) : path(name), stream(::opendir(name.c_str())) {}
  OpenFolder(const OpenFolder&) = delete;
  OpenFolder& operator=(const OpenFolder&) = delete;
  ~OpenFolder() {
    if (stream != nullptr) ::closedir(stream);
  }
  int fd() const { return ::dirfd(stream); }
  std::string below(std::string_view name) const {
    return message(path, path == "/" ? "" : "/", name);
  }

  std::string path;
  DIR* stream;
  std::shared_ptr<const Ancestor> self = {};
};

struct NameInFolder {
  ino64_t inode = 0;
  PathPattern::Match match = {};
  std::string name;
};

// One of both: names of a folder are looked at, or a folder is listed.
struct ScanTask {
  FolderToList to_list = {};
  std::shared_ptr<const OpenFolder> folder = {};
  std::vector<NameInFolder> names = {};
};

int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void settle(int fd, FileStatus& status) {
  const int64_t age = now_ns() - status.modified_ns;
  if (age < 0 || age >= kSettlingNs) return;
  std::this_thread::sleep_for(std::chrono::nanoseconds(kSettlingNs - age));
  status = status_of_open(fd);
}

bool is_gone(int error_number) { return error_number == ENOENT || error_number == ENOTDIR; }

// By the bytes of their paths.
FoundFiles joined_in_order(const std::vector<FoundFiles>& parts) {
  struct Row {
    std::string_view path;
    const FoundFiles* part;
    size_t number;
  };
  std::vector<Row> rows;
  size_t path_bytes = 0;
  for (const FoundFiles& part : parts) {
    path_bytes += part.paths.size();
    for (size_t number = 0; number < part.count(); ++number) {
      rows.push_back({part.path(number), &part, number});
    }
  }
  std::ranges::sort(rows, {}, &Row::path);
  FoundFiles joined;
  joined.paths.reserve(path_bytes);
  for (const Row& row : rows) {
    joined.add(row.path, row.part->versions[row.number], row.part->direct_alignments[row.number]);
  }
  return joined;
}

class Scanner {
 public:
  Scanner(const PathPattern& pattern, const FolderScanOptions& options)
      : pattern_(pattern),
        options_(options),
        files_(static_cast<size_t>(options.threads)),
        folders_(files_.size()) {}

  FolderScan run(const std::string& folder, const FolderScanProgress& progress);

 private:
  void work(size_t thread) noexcept;
  void wait(const FolderScanProgress& progress);
  void end(std::optional<Error> failure);
  void push(ScanTask task);
  bool has_many_tasks();
  bool finish_task();  // whether it was the last one
  void list(const FolderToList& folder, size_t thread);
  bool enter(const FolderToList& entered, OpenFolder& folder, size_t thread);
  void count_way(const FileStatus& status, const std::string& path);
  void list_names(const std::shared_ptr<OpenFolder>& folder, PathPattern::Parts parts,
                  size_t thread);
  void take(const std::shared_ptr<OpenFolder>& folder, const dirent64& entry,
            const PathPattern::Match& match, std::vector<NameInFolder>& names);
  void look_at(const OpenFolder& folder, std::vector<NameInFolder>& names, size_t thread);
  void look_at(const OpenFolder& folder, const NameInFolder& one, size_t thread);

  const PathPattern& pattern_;
  const FolderScanOptions options_;
  std::vector<FoundFiles> files_;  // of each thread
  std::vector<FoundFiles> folders_;
  std::atomic<int64_t> num_files_{0};
  std::atomic<int64_t> num_folders_{0};
  std::atomic<bool> is_over_{false};

  std::mutex mutex_;  // guards what follows
  std::condition_variable task_arrived_;
  std::condition_variable ended_;
  // The last one comes first, so that names of folders that are open do not wait.
  std::vector<ScanTask> tasks_;
  std::map<std::pair<uint64_t, uint64_t>, int64_t> ways_;  // to a folder: its device and inode
  int64_t unfinished_ = 0;  // tasks, those that a thread has among them
  std::optional<Error> failure_;
};

void Scanner::push(ScanTask task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    ++unfinished_;
  }
  task_arrived_.notify_one();
}

bool Scanner::has_many_tasks() {
  const std::lock_guard lock(mutex_);
  return tasks_.size() >= kMostTasks * files_.size();
}

bool Scanner::finish_task() {
  const std::lock_guard lock(mutex_);
  return --unfinished_ == 0;
}

void Scanner::end(std::optional<Error> failure) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
    is_over_ = true;
  }
  task_arrived_.notify_all();
  ended_.notify_all();
}

void Scanner::work(size_t thread) noexcept {
  try {
    while (true) {
      ScanTask task;
      {
        std::unique_lock lock(mutex_);
        task_arrived_.wait(lock, [this] { return is_over_ || !tasks_.empty(); });
        if (is_over_) return;
        task = std::move(tasks_.back());
        tasks_.pop_back();
      }
      if (task.folder != nullptr) {
        look_at(*task.folder, task.names, thread);
      } else {
        list(task.to_list, thread);
      }
      if (finish_task()) end(std::nullopt);
    }
  } catch (const Error& error) {
    end(error);
  } catch (const std::exception& error) {
    end(Error(ErrorKind::out_of_memory, message("listing files failed: ", error.what())));
  }
}

void Scanner::list(const FolderToList& to_list, size_t thread) {
  const auto folder = std::make_shared<OpenFolder>(to_list.path);
  if (folder->stream == nullptr) {
    const int error_number = errno;
    // Links in a circle are no folder.
    const bool is_none = is_gone(error_number) || error_number == ELOOP;
    if (is_none && to_list.above != nullptr) return;
    throw error_from_errno(error_number, "list the folder", to_list.path);
  }
  if (enter(to_list, *folder, thread)) list_names(folder, to_list.parts, thread);
}

// False where the folder lies within itself.
bool Scanner::enter(const FolderToList& entered, OpenFolder& folder, size_t thread) {
  FileStatus status = status_of_open(folder.fd());
  if (options_.settles && status.error_number == 0) settle(folder.fd(), status);
  if (status.error_number != 0) {
    throw error_from_errno(status.error_number, "look at the folder", folder.path);
  }
  for (const Ancestor* one = entered.above.get(); one != nullptr; one = one->above.get()) {
    if (one->device == status.device && one->inode == status.inode) return false;
  }
  count_way(status, folder.path);
  folder.self = std::make_shared<Ancestor>(Ancestor{status.device, status.inode, entered.above});
  folders_[thread].add(folder.path,
                       {.device = status.device,
                        .inode = status.inode,
                        .size_bytes = status.size_bytes,
                        .modified_ns = status.modified_ns},
                       0);
  ++num_folders_;
  return true;
}

void Scanner::count_way(const FileStatus& status, const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (++ways_[{status.device, status.inode}] <= kMostWays) return;
  throw Error(ErrorKind::data,
              message(path, ": more than ", kMostWays,
                      " paths lead to this folder: folders that link to each other have no end; "
                      "remove links, or name the files by a pattern without **"));
}

void Scanner::list_names(const std::shared_ptr<OpenFolder>& folder, PathPattern::Parts parts,
                         size_t thread) {
  std::vector<NameInFolder> names;
  while (!is_over_) {
    errno = 0;
    const dirent64* entry = ::readdir64(folder->stream);
    if (entry == nullptr) {
      if (errno != 0) throw error_from_errno(errno, "list the folder", folder->path);
      break;
    }
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    const PathPattern::Match match = pattern_.match(parts, name);
    if (match.is_meant || match.below != 0) take(folder, *entry, match, names);
    if (names.size() < kNamesAtOnce) continue;
    if (has_many_tasks()) {  // as many names as the kernel has would wait
      look_at(*folder, names, thread);
      names.clear();
    } else {
      push({.folder = folder, .names = std::exchange(names, {})});
    }
  }
  look_at(*folder, names, thread);
}

void Scanner::take(const std::shared_ptr<OpenFolder>& folder, const dirent64& entry,
                   const PathPattern::Match& match, std::vector<NameInFolder>& names) {
  if (entry.d_type == DT_DIR) {
    if (match.below == 0) return;
    push({.to_list = {folder->below(entry.d_name), match.below, folder->self}});
  } else if (match.is_meant || entry.d_type == DT_LNK || entry.d_type == DT_UNKNOWN) {
    names.push_back({entry.d_ino, match, entry.d_name});
  }
}

// In the order in which they lie on the device.
void Scanner::look_at(const OpenFolder& folder, std::vector<NameInFolder>& names, size_t thread) {
  std::ranges::sort(names, {}, &NameInFolder::inode);
  for (const NameInFolder& one : names) {
    if (is_over_) return;
    look_at(folder, one, thread);
  }
}

void Scanner::look_at(const OpenFolder& folder, const NameInFolder& one, size_t thread) {
  const FileStatus status = status_in_folder(folder.fd(), one.name.c_str());
  if (status.error_number == 0 && S_ISDIR(status.mode)) {
    if (one.match.below == 0) return;
    push({.to_list = {folder.below(one.name), one.match.below, folder.self}});
    return;
  }
  if (!one.match.is_meant) return;
  if (is_gone(status.error_number)) {
    struct stat link {};
    if (::fstatat(folder.fd(), one.name.c_str(), &link, AT_SYMLINK_NOFOLLOW) != 0) return;
    throw Error(ErrorKind::not_found, message(folder.below(one.name),
                                              ": is a link to a file that is not there; remove "
                                              "the link, or restore the file"));
  }
  const std::string path = folder.below(one.name);
  const FileInfo info = info_of(status, path);
  files_[thread].add(path, info.version, info.direct_alignment);
  ++num_files_;
}

void Scanner::wait(const FolderScanProgress& progress) {
  std::unique_lock lock(mutex_);
  while (!is_over_) {
    ended_.wait_until(lock, std::chrono::system_clock::now() + kWaitSlice);
    lock.unlock();
    if (progress) progress(num_files_, num_folders_);
    lock.lock();
  }
}

FolderScan Scanner::run(const std::string& folder, const FolderScanProgress& progress) {
  push({.to_list = {folder, pattern_.first()}});
  std::vector<std::thread> threads;
  std::exception_ptr interruption;
  try {
    for (size_t index = 0; index < files_.size(); ++index) {
      try {
        threads.emplace_back([this, index] { work(index); });
      } catch (const std::system_error& error) {
        if (threads.empty())
          throw thread_error("a thread to list files with", error.code().value());
        break;  // fewer still do everything
      }
    }
    wait(progress);
  } catch (...) {
    interruption = std::current_exception();
  }
  end(std::nullopt);
  for (std::thread& thread : threads) thread.join();
  if (interruption) std::rethrow_exception(interruption);
  if (failure_) throw Error(*failure_);
  if (progress) progress(num_files_, num_folders_);
  return {joined_in_order(files_), joined_in_order(folders_)};
}

}  // namespace

std::string_view FoundFiles::path(size_t number) const {
  const uint64_t begin = number == 0 ? 0 : ends[number - 1];
  return std::string_view(paths).substr(begin, ends[number] - begin);
}

void FoundFiles::add(std::string_view path, const ObjectVersion& version,
                     int64_t direct_alignment) {
  paths += path;
  ends.push_back(paths.size());
  versions.push_back(version);
  direct_alignments.push_back(direct_alignment);
}

FolderScan scan_folder(const std::string& folder, const PathPattern& pattern,
                       const FolderScanOptions& options, const FolderScanProgress& progress) {
  if (options.threads < 1 || options.threads > kMostThreads) {
    throw Error(ErrorKind::config, message("files are listed by 1 to ", kMostThreads,
                                           " threads, not by ", options.threads));
  }
  return Scanner(pattern, options).run(folder, progress);
}

}  // namespace s3io
