#include "io/head_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <string>

#include "base/crew.h"
#include "base/error.h"
#include "base/unique_fd.h"

namespace s3io {
namespace {

constexpr size_t kHeadsPerTurn = 8;

// Opening a FIFO must not wait for somebody to write into it.
int64_t read_head(const std::string& path, int64_t offset, std::span<std::byte> out) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) throw error_from_errno(errno, "open", path);
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = ::pread(fd.get(), out.data() + done, out.size() - done,
                                  offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw error_from_errno(errno, "read", path);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return static_cast<int64_t>(done);
}

}  // namespace

void read_heads(std::span<const std::string_view> paths, std::span<const int64_t> offsets,
                int64_t length, std::span<std::byte> out, std::span<int64_t> counts, int threads) {
  const auto bytes = static_cast<size_t>(length);
  Crew crew(threads);
  std::mutex mutex;
  std::optional<Error> failure;
  size_t failed = paths.size();  // the first one
  crew.run((paths.size() + kHeadsPerTurn - 1) / kHeadsPerTurn, [&](size_t turn) {
    const size_t first = turn * kHeadsPerTurn;
    for (size_t number = first; number < std::min(first + kHeadsPerTurn, paths.size()); ++number) {
      try {
        counts[number] = read_head(std::string(paths[number]), offsets[number],
                                   out.subspan(number * bytes, bytes));
      } catch (const Error& error) {
        const std::lock_guard lock(mutex);
        if (number < failed) failure = error;
        failed = std::min(failed, number);
      }
    }
  });
  if (failure) throw Error(*failure);
}

}  // namespace s3io
