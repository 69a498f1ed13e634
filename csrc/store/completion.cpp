#include "store/completion.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <utility>

#include "base/error.h"
#include "store/checksum_text.h"
#include "store/timed_steps.h"

namespace s3io {
namespace {

// Small enough for 2 MB/s to be no hang at the default limit of 30 s, large enough for the pieces
// to take hardly longer than one sync.
constexpr int64_t kPieceBytes = int64_t{32} << 20;
constexpr double kRemovalTimeout_s = 1;

class Steps {
 public:
  Steps(TemporaryFile& file, const Completion& completion, TimedSteps& steps)
      : file_(file), completion_(completion), steps_(steps), fd_(file.output().fd) {}

  void cut() {
    if (!completion_.is_longer) return;
    steps_.begin("the cut to its size (ftruncate)");
    check(file_.calls().truncate(fd_, completion_.size_bytes), "cut to its size");
  }

  bool keep_checksum() {
    if (!completion_.crc32c) return false;
    steps_.begin("keeping its checksum (fsetxattr)");
    const int result = file_.calls().set_attribute(
        fd_, kChecksumAttribute, checksum_text({completion_.size_bytes, *completion_.crc32c}));
    // Many file systems have no such attributes, or no room for one more.
    const bool has_none = result == -EOPNOTSUPP || may_be_filtered(-result) || result == -ENOSPC ||
                          result == -EDQUOT || result == -E2BIG;
    if (!has_none) check(result, "keep its checksum");
    return result == 0;
  }

  void keep_mode() {
    steps_.begin("keeping its permissions (fchmod)");
    file_.keep_mode();
  }

  void sync() {
    write_back();
    steps_.begin("the sync of its bytes (fsync)");
    check(file_.calls().sync(fd_), "sync");
  }

  void commit() {
    steps_.begin("the rename", "; whether the new file has taken its place is unknown");
    completion_.if_absent ? file_.commit_if_absent() : file_.commit();
  }

  void sync_folder() {
    steps_.go_on("the sync of its name (fsync of the folder)", ", though the new file is in place");
    file_.sync_folder();
  }

 private:
  // One piece ahead, so that the device always has something to do.
  void write_back() {
    const int64_t size = completion_.size_bytes;
    if (file_.output().is_direct() || size <= kPieceBytes) return;
    bool is_possible = begin_piece(0);
    for (int64_t offset = 0; is_possible && offset < size; offset += kPieceBytes) {
      is_possible = begin_piece(offset + kPieceBytes) &&
                    succeeds(file_.calls().end_write_back(fd_, offset, piece(offset)));
    }
  }

  bool begin_piece(int64_t offset) {
    steps_.begin("writing 32 MiB back from the page cache (sync_file_range)");
    return offset >= completion_.size_bytes ||
           succeeds(file_.calls().begin_write_back(fd_, offset, piece(offset)));
  }

  int64_t piece(int64_t offset) const {
    return std::min(kPieceBytes, completion_.size_bytes - offset);
  }

  // False where the file system cannot do this, or a container forbids the call.
  bool succeeds(int result) const {
    if (may_be_filtered(-result) || result == -EINVAL || result == -ESPIPE) return false;
    check(result, "write it back from the page cache");
    return true;
  }

  void check(int result, const char* action) const {
    if (result < 0) throw write_error_from_errno(-result, action, completion_.path);
  }

  TemporaryFile& file_;
  const Completion& completion_;
  TimedSteps& steps_;
  const int fd_;
};

}  // namespace

bool complete(std::shared_ptr<TemporaryFile> file, const Completion& completion, double timeout_s,
              const WaitCallback& on_wait) {
  const auto is_kept = std::make_shared<bool>(false);
  const auto may_be_in_place = std::make_shared<std::atomic<bool>>(false);
  try {
    TimedSteps::run(
        completion.path, timeout_s, on_wait,
        [file = std::move(file), completion, is_kept, may_be_in_place](TimedSteps& timed) {
          Steps steps(*file, completion, timed);
          steps.cut();
          *is_kept = steps.keep_checksum();
          steps.keep_mode();
          if (completion.sync) steps.sync();
          *may_be_in_place = true;
          steps.commit();
          if (completion.sync) steps.sync_folder();
        });
  } catch (const Error& error) {
    throw Error(error.kind(), error.what(), error.is_undone() || !*may_be_in_place);
  }
  return *is_kept;
}

void abandon(std::shared_ptr<TemporaryFile> file) noexcept {
  try {
    const std::string path = file->path();
    TimedSteps::run(path, kRemovalTimeout_s, {}, [file = std::move(file)](TimedSteps&) {});
  } catch (const std::exception&) {  // left to its thread; without one, removed here
  }
}

void leave_behind(std::shared_ptr<TemporaryFile> file) noexcept {
  try {
    const auto* left = new std::shared_ptr<TemporaryFile>(std::move(file));  // writes refer to it
    TimedSteps::run((*left)->path(), kRemovalTimeout_s, {},
                    [left](TimedSteps&) { (*left)->discard_but_leave_open(); });
  } catch (const std::exception&) {  // left to its thread; without one, to the next start
  }
}

}  // namespace s3io
