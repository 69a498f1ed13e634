// Classes of files, which are the names of folders that the files lie in.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/object_names.h"

namespace s3io {

struct FolderLabels {
  std::vector<int64_t> labels;       // of each file: the number of its class
  std::vector<std::string> classes;  // by the bytes of their names
};

enum class LabelFolder : uint8_t {
  first,  // of the name of a file, which is so much of the end of its path
  last,   // the one that the file lies in
};

// Throws Error(data) for a file that lies in no folder.
FolderLabels label_by_folders(const ObjectNames& paths, std::span<const int64_t> name_bytes,
                              LabelFolder which);

// How many bytes of all paths are those of the folder that holds all of them, with its slash.
int64_t common_folder_bytes(const ObjectNames& paths);

}  // namespace s3io
