// The files of a tar archive, by columns: no object per member.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace s3io {

// In the order of the archive. Names are bytes; nothing says that they are text.
struct TarMembers {
  std::vector<int64_t> offsets;    // of the first byte of each one's data
  std::vector<int64_t> sizes;      // bytes
  std::vector<int64_t> name_ends;  // in `names`; each begins where the one before it ends
  std::string names;
  bool has_end = false;  // of the archive: zeros behind the last member

  size_t count() const { return offsets.size(); }
  size_t name_begin(size_t member) const {
    return member == 0 ? 0 : static_cast<size_t>(name_ends[member - 1]);
  }
  std::string_view name(size_t member) const {
    const size_t begin = name_begin(member);
    return std::string_view(names).substr(begin, static_cast<size_t>(name_ends[member]) - begin);
  }
  void add(std::string_view name, int64_t offset, int64_t size) {
    names += name;
    offsets.push_back(offset);
    sizes.push_back(size);
    name_ends.push_back(static_cast<int64_t>(names.size()));
  }
};

}  // namespace s3io
