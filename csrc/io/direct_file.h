// An open regular file that can be read directly (O_DIRECT), through the page cache, or both.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/unique_fd.h"
#include "io/range_reader.h"

namespace s3io {

enum class DirectMode : uint8_t {
  automatic,  // direct where the file system can, through the page cache where it cannot
  require,    // direct, or Error(direct_io)
  off,        // through the page cache
};

// "auto", "require", "off". Throws Error(config) for anything else.
DirectMode parse_direct_mode(const std::string& name);

// In words how `now`, of the file that `fd` has open, shows another version than `before`: another
// size, another time of change, or another file of this name. Empty where nothing does.
//
// Note: local file systems keep inode numbers; FUSE, network and overlay file systems may give an
// unchanged file another one when their caches expire.
std::string difference(const ObjectVersion& before, const ObjectVersion& now, int fd);

struct FileInfo {
  ObjectVersion version;
  int64_t direct_alignment = 0;  // of offset, length and memory; 0: no direct reads of this file
};

// Of what the kernel said of `path`. Throws as `inspect_file`.
FileInfo info_of(const struct FileStatus& status, const std::string& path);

// Looks at `path` without opening it. Throws Error(not_found | access | config) for what is
// missing, forbidden, or not a regular file.
FileInfo inspect_file(const std::string& path);

class DirectFile final : public Object {
 public:
  // `min_alignment` raises the alignment that the file system asks for (0: leave it).
  DirectFile(std::string path, DirectMode mode, int64_t min_alignment);
  ~DirectFile() override;

  const std::string& path() const override { return path_; }
  const ObjectVersion& version() const { return version_; }
  int64_t size() const override { return version_.size_bytes; }
  DirectMode mode() const { return mode_; }
  // Offset, length and memory of direct reads are multiples of this; 1 where there are none.
  int64_t alignment() const { return alignment_; }

  bool can_read_direct() const { return direct_fd_.valid() && !direct_refused_; }
  bool can_read_buffered() const { return buffered_fd_.valid(); }
  int direct_fd() const { return direct_fd_.get(); }
  int buffered_fd() const { return buffered_fd_.get(); }

  int64_t block_bytes() const override { return can_read_direct() ? alignment_ : 1; }
  void keep_open() override { kept_open_ = true; }
  int64_t prefetch(int64_t offset, int64_t length) override;

  // Some file systems accept O_DIRECT on open and refuse the read: stop trying.
  void refuse_direct() { direct_refused_ = true; }
  // The kernel does not say for every file whether a range is in the page cache.
  bool can_probe_cache() const { return can_probe_cache_; }
  void refuse_cache_probes() { can_probe_cache_ = false; }

  // Throws Error(file_changed) if the file's size or time of change is another one than when it was
  // opened, or if it was deleted or replaced since.
  void check_unchanged() const override;
  // How the file differs from `before`; empty where it does not.
  std::string difference_from(const ObjectVersion& before) const {
    return difference(before, version_, any_fd());
  }
  // The file's size as it is now, in bytes; -1 if the kernel does not say.
  int64_t size_now() const noexcept;

 private:
  // What the kernel says of what was opened: the version, and the alignment.
  void look(int64_t min_alignment);
  int any_fd() const;

  std::string path_;
  DirectMode mode_;
  ObjectVersion version_;
  bool has_name_ = true;  // some file systems say of every file that it has none
  int64_t alignment_ = 1;
  UniqueFd direct_fd_;
  UniqueFd buffered_fd_;
  std::atomic<bool> kept_open_{false};
  std::atomic<bool> direct_refused_{false};
  std::atomic<bool> can_probe_cache_{true};
};

}  // namespace s3io
