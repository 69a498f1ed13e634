#include "io/refused_calls.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/error.h"
#include "base/unique_fd.h"
#include "io/page_cache.h"

namespace s3io {

std::vector<RefusedCall> refused_calls() {
  std::vector<RefusedCall> refused;
  const auto note = [&](const char* name, bool works) {
    if (!works && may_be_filtered(errno)) refused.push_back({name, errno});
  };
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  struct statx status {};
  note("statx", ::statx(file.get(), "", AT_EMPTY_PATH, STATX_SIZE, &status) == 0);
  note("memfd_create", UniqueFd(::memfd_create("torch_s3io", MFD_CLOEXEC)).valid());
  note("cachestat", cached_bytes(file.get(), 0, 1) >= 0);
  std::array<char, 1> byte{};
  const iovec into{byte.data(), byte.size()};
  note("preadv2", ::preadv2(file.get(), &into, 1, 0, RWF_NOWAIT) >= 0);
  return refused;
}

}  // namespace s3io
