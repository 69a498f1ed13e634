#include "memory/shared_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/align.h"
#include "base/error.h"
#include "base/limits.h"

namespace s3io {
namespace {

std::atomic<int64_t> mappings{0};

// Of the bytes: unmaps, or frees.
struct MappedFile {
  MappedFile(std::byte* memory, size_t mapped_bytes) : begin(memory), mapped(mapped_bytes) {}
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (mapped == 0) {
      std::free(begin);
      return;
    }
    ::munmap(begin, mapped);
    mappings.fetch_sub(1, std::memory_order_relaxed);
  }

  std::byte* begin;
  size_t mapped;  // bytes; 0: an allocation
};

// From the start of a page on.
std::unique_ptr<MappedFile> map(int fd, int64_t offset, size_t length) {
  if (mappings.load(std::memory_order_relaxed) >= kMostMappings) return nullptr;
  void* mapped = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (mapped == MAP_FAILED) return nullptr;
  mappings.fetch_add(1, std::memory_order_relaxed);
  return std::make_unique<MappedFile>(static_cast<std::byte*>(mapped), length);
}

// From the start of a cache line on.
std::unique_ptr<MappedFile> copy(int fd, int64_t begin, int64_t length) {
  const auto rounded = static_cast<size_t>(align_up(length, kCacheLineBytes));
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kCacheLineBytes, rounded));
  if (data == nullptr) {
    throw Error(ErrorKind::out_of_memory,
                message("cannot allocate ", length, " bytes for a tensor from a worker",
                        limit_hint(ENOMEM), "; keep fewer batches"));
  }
  auto owner = std::make_unique<MappedFile>(data, 0);
  for (int64_t done = 0; done < length;) {
    const ssize_t count =
        ::pread(fd, data + done, static_cast<size_t>(length - done), begin + done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      throw Error(ErrorKind::data, message("cannot read a tensor from a worker: ",
                                           count < 0 ? errno_text(errno) : "it ends too early"));
    }
    done += count;
  }
  return owner;
}

}  // namespace

SharedFile open_shared_file(int fd, int64_t offset, int64_t length) {
  struct stat status {};
  // Beyond its end a mapping must not be touched.
  if (offset < 0 || length < 1 || ::fstat(fd, &status) != 0 || status.st_size < length ||
      status.st_size - length < offset) {
    throw Error(ErrorKind::data, message("a tensor from a worker of ", length, " bytes at ", offset,
                                         " lies in memory of only ", status.st_size));
  }
  int64_t head = offset % kPageBytes;
  std::unique_ptr<MappedFile> owner = map(fd, offset - head, static_cast<size_t>(head + length));
  const bool is_mapped = owner != nullptr;
  if (!is_mapped) {
    head = offset % kCacheLineBytes;
    owner = copy(fd, offset - head, head + length);
  }
  std::byte* data = owner->begin + head;
  return {data, owner.release(), is_mapped};
}

void free_shared_file(void* owner) noexcept { delete static_cast<MappedFile*>(owner); }

int64_t mapped_files() { return mappings.load(std::memory_order_relaxed); }

}  // namespace s3io
