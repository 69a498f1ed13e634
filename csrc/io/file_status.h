// What the kernel says of a file: statx(2), or stat(2) where a container's filter refuses that.
#pragma once

#include <cstdint>
#include <string>

namespace s3io {

struct FileStatus {
  int error_number = 0;  // when not 0 nothing else is known
  uint32_t mode = 0;     // type and permissions, as st_mode
  uint32_t links = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size_bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  // Of direct reads and writes; 0 where the file system says that there are none. A page where the
  // kernel does not say (before Linux 6.1, or no statx), which is enough for nearly all devices.
  int64_t direct_alignment = 0;
  int64_t memory_alignment = 0;  // that suffices for the memory: at most the above
};

FileStatus status_of_path(const std::string& path);
// Of a name in a folder that is open.
FileStatus status_in_folder(int folder_fd, const char* name);
// Of an open file, as the file system has it at hand: a network file system does not ask its
// server.
FileStatus status_of_open(int fd);

}  // namespace s3io
