// The last steps of a file that is written: from bytes under a temporary name to the file itself.
//
// Each step is a system call that a dead device or file system may never finish, so each has a time
// limit of its own (timed_steps.h). A sync of much that is only in the page cache is not a hang:
// those bytes are written back in pieces first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "store/store.h"
#include "store/temporary_file.h"

namespace s3io {

struct Completion {
  std::string path;  // as errors name it
  int64_t size_bytes = 0;
  bool is_longer = false;          // on the disk, by padding or reserved space
  std::optional<uint32_t> crc32c;  // to be kept with the file
  bool sync = true;                // bytes and name are on the device on return
  bool if_absent = false;          // Error(exists) where something has its name
};

// Cuts the file to its size, keeps its checksum and the old file's permissions, syncs, and renames.
// Returns whether the file keeps the checksum. Throws Error or what `on_wait` throws: then the old
// file is there, or none, unless the text says that the new one is in place, or that this is
// unknown; of an Error is_undone says so, too. No step is begun after that, but the sync of the
// name of a file that is in place. An Error of `on_wait` is not thrown when the file is complete a
// second later: see TimedSteps::run.
bool complete(std::shared_ptr<TemporaryFile> file, const Completion& completion, double timeout_s,
              const WaitCallback& on_wait);

// Lets go of a file that will not be completed: its last owner removes and closes it. What does not
// come back within a second is left to a thread.
void abandon(std::shared_ptr<TemporaryFile> file) noexcept;
// Removes a file with writes that may still come: it is never closed.
void leave_behind(std::shared_ptr<TemporaryFile> file) noexcept;

}  // namespace s3io
