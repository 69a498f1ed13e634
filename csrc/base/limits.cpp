#include "base/limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>

namespace s3io {
namespace {

constexpr int64_t kPlentyOfFiles = 65536;
constexpr int64_t kKibibyte = 1024;

// Nothing: without limit.
std::optional<int64_t> soft_limit(__rlimit_resource resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return static_cast<int64_t>(limit.rlim_cur);
}

std::string file_size_hint() {
  if (const auto bytes = soft_limit(RLIMIT_FSIZE)) {
    return message("; raise the limit of file sizes, now ", *bytes / kKibibyte,
                   " KiB (ulimit -f unlimited)");
  }
  return "; the file system holds no file that is so long (FAT: 4 GiB): write shorter files, or to "
         "another one";
}

std::string address_space_hint() {
  if (const auto bytes = soft_limit(RLIMIT_AS)) {
    return message("; raise the limit of address space, now ", *bytes / kKibibyte,
                   " KiB (ulimit -v unlimited)");
  }
  if (const auto bytes = soft_limit(RLIMIT_DATA)) {
    return message("; raise the limit of data, now ", *bytes / kKibibyte,
                   " KiB (ulimit -d unlimited)");
  }
  return "";
}

}  // namespace

std::string limit_hint(int error_number) {
  switch (error_number) {
    case EMFILE: {
      const int64_t now = soft_limit(RLIMIT_NOFILE).value_or(0);
      return message("; raise the limit of open files, now ", now, " (ulimit -n ",
                     std::max(kPlentyOfFiles, 4 * now), ")");
    }
    case ENFILE:
      return "; raise the machine's limit of open files (sysctl fs.file-max)";
    case EFBIG:
      return file_size_hint();
    case ENOMEM:
      return address_space_hint();
    default:
      return "";
  }
}

Error thread_error(std::string_view what, int error_number) {
  std::string hint = "; raise the limit of processes";
  if (const auto count = soft_limit(RLIMIT_NPROC)) append(hint, message(", now ", *count));
  append(hint, " (ulimit -u unlimited), and that of the container (pids.max, docker run ");
  append(hint, "--pids-limit=-1)");
  append(hint, address_space_hint());
  return Error(ErrorKind::out_of_memory,
               message("cannot start ", what, ": ", errno_text(error_number), hint));
}

}  // namespace s3io
