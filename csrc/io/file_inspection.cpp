#include "io/file_inspection.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "base/crew.h"
#include "base/error.h"
#include "io/file_status.h"

namespace s3io {
namespace {

constexpr size_t kFilesAtOnce = 4096;  // between two calls of `progress`
constexpr size_t kFilesPerTurn = 32;

}  // namespace

void inspect_files(std::span<const std::string> paths, std::span<FileInfo> out, int threads,
                   const std::function<void(int64_t)>& progress) {
  Crew crew(threads);
  std::mutex mutex;
  std::optional<Error> failure;
  size_t failed = paths.size();  // the first one
  for (size_t begin = 0; begin < paths.size() && !failure; begin += kFilesAtOnce) {
    const size_t end = std::min(begin + kFilesAtOnce, paths.size());
    crew.run((end - begin + kFilesPerTurn - 1) / kFilesPerTurn, [&](size_t turn) {
      const size_t first = begin + turn * kFilesPerTurn;
      for (size_t number = first; number < std::min(first + kFilesPerTurn, end); ++number) {
        try {
          out[number] = inspect_file(paths[number]);
        } catch (const Error& error) {
          const std::lock_guard lock(mutex);
          if (number < failed) failure = error;
          failed = std::min(failed, number);
        }
      }
    });
    if (progress) progress(static_cast<int64_t>(end));
  }
  if (failure) throw Error(*failure);
}

int64_t find_changed_folder(std::span<const std::string_view> paths,
                            std::span<const int64_t> modified_ns, int threads) {
  Crew crew(threads);
  std::atomic<size_t> first{paths.size()};
  crew.run((paths.size() + kFilesPerTurn - 1) / kFilesPerTurn, [&](size_t turn) {
    const size_t begin = turn * kFilesPerTurn;
    for (size_t number = begin; number < std::min(begin + kFilesPerTurn, paths.size()); ++number) {
      if (number >= first) return;
      const FileStatus now = status_of_path(std::string(paths[number]));
      const bool is_same =
          now.error_number == 0 && S_ISDIR(now.mode) && now.modified_ns == modified_ns[number];
      if (is_same) continue;
      size_t seen = first;
      while (number < seen && !first.compare_exchange_weak(seen, number)) {
      }
      return;
    }
  });
  return first == paths.size() ? -1 : static_cast<int64_t>(first);
}

}  // namespace s3io
