// Which members of an archive make up a sample, by their names: the rule of webdataset.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/tar_members.h"

namespace s3io {

// "images/7.seg.png" is the field "seg.png" of the sample "images/7".
struct MemberName {
  std::string_view key;        // up to the first dot of the base name
  std::string_view extension;  // as it is written
};

// Nothing for a name without both, and for "__name__" and what lies in such a folder: webdataset
// leaves these out. As its regular expressions, ^((?:.*/|)[^.]+)[.]([^/]*)$ and __[^/]*__($|/),
// say.
std::optional<MemberName> split_member_name(std::string_view name);

// By columns. Members that follow one another with one key are a sample.
struct SampleNames {
  std::vector<int64_t> sample_of;     // of each member; -1: of none
  std::vector<int64_t> extension_of;  // of each member: its place in `extensions`, or -1
  std::vector<std::string> extensions;
  std::string keys;               // of all samples
  std::vector<int64_t> key_ends;  // in `keys`; each begins where the one before it ends
};

// Throws Error(data), with the path of the archive, where the members of a key do not follow one
// another, or where there are more extensions than `most_extensions`. Where keys ascend, as in
// archives that are sorted, it takes no memory but for what it gives.
SampleNames group_member_names(const std::string& path, const TarMembers& members,
                               size_t most_extensions);

}  // namespace s3io
