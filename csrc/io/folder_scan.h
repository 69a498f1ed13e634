// The files below a folder that a pattern means, with what the kernel says of each.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/path_pattern.h"
#include "io/range_reader.h"

namespace s3io {

// Columns: there may be millions of them.
struct FoundFiles {
  std::string paths;  // one after the other
  std::vector<uint64_t> ends = {};
  std::vector<ObjectVersion> versions = {};
  std::vector<int64_t> direct_alignments = {};  // see FileInfo

  size_t count() const { return ends.size(); }
  std::string_view path(size_t number) const;
  void add(std::string_view path, const ObjectVersion& version, int64_t direct_alignment);
};

struct FolderScan {
  FoundFiles files;    // by the bytes of their paths
  FoundFiles folders;  // all that were listed, as they were before that; in any order
};

struct FolderScanOptions {
  int threads = 16;
  // A folder that was changed just now is listed a moment later: whatever changes it afterwards
  // gives it another time of change.
  bool settles = false;
};

// So many files were found, and so many folders listed. What it throws ends the scan.
using FolderScanProgress = std::function<void(int64_t files, int64_t folders)>;

// Links are followed, to files and to folders; a folder within itself is left out. Folders and
// files that are removed meanwhile are none.
//
// `folder`: absolute. Throws Error: data for a folder that too many paths lead to, not_found for
// `folder` and for links that lead nowhere, access for a folder that cannot be listed, config for
// FIFOs, sockets and devices that the pattern means, and for a number of threads that is none.
FolderScan scan_folder(const std::string& folder, const PathPattern& pattern,
                       const FolderScanOptions& options, const FolderScanProgress& progress);

}  // namespace s3io
