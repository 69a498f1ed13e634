// A file that is written under a temporary name, next to the one it will have. If it replaces a
// file it keeps that one's permissions; owner, ACLs and attributes are those of a new file.
//
// Phases: created and locked -> written -> committed (renamed), or discarded (removed). The lock
// (flock) ends with its process, however that dies: `remove_abandoned` tells by it what is left
// over from dead writers and what a live one still writes. Names are
// ".s3io-tmp-<16 random hex digits>-<the first 100 bytes of the name it will have>".
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/unique_fd.h"
#include "io/file_calls.h"
#include "io/write_queue.h"

namespace s3io {

inline constexpr const char* kTemporaryPrefix = ".s3io-tmp-";

class TemporaryFile {
 public:
  // Throws Error naming `path`: its folder is missing or forbidden, or direct writes are required
  // and refused. `min_alignment` raises the alignment that the file system asks for (0: leave it).
  TemporaryFile(std::string path, DirectMode mode, int64_t min_alignment,
                std::shared_ptr<FileCalls> calls);
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { discard(); }

  const std::string& path() const { return path_; }
  OutputFile& output() { return output_; }
  FileCalls& calls() { return *calls_; }

  // Gives it the permissions of the file that it replaces, if there is one. Throws Error.
  void keep_mode();
  // Gives the file its name, and closes it. Throws Error: then the file is still there.
  void commit();
  // The same where nothing has this name; of two at once one throws Error(exists), which is_undone.
  void commit_if_absent();
  // Brings the name to the device. Throws Error, which says that the new file is in place.
  void sync_folder();
  void discard() noexcept;
  // For a forked child, whose parent owns the file: neither closes nor removes anything.
  void leave() noexcept;
  // For writes that may still come: as `discard`, but the descriptor is never closed.
  void discard_but_leave_open() noexcept;

 private:
  void create();
  int rename_if_absent();
  bool is_in_place() const;
  void lock_and_align(int64_t min_alignment);

  std::string path_;
  std::string temporary_path_;  // empty once there is no such file
  std::shared_ptr<FileCalls> calls_;
  UniqueFd fd_;
  OutputFile output_;
  std::optional<mode_t> old_mode_;  // of the file that it replaces
};

// Of a file that was to be a new one.
Error exists_already(const std::string& path);

// Removes the temporary files of dead writers from the folder. What cannot be removed stays.
// `on_progress` is called every few hundred entries, and throws to give up.
void remove_abandoned(const std::string& folder, const std::function<void()>& on_progress = {});

// What `path` leads to when it is a symbolic link, there or not; else `path`. Throws Error naming
// it.
std::string behind_links(const std::string& path);

// The folder part of a path, as far as system calls are concerned.
std::string folder_of(const std::string& path);

}  // namespace s3io
