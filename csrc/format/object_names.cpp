#include "format/object_names.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace s3io {

ObjectNames::ObjectNames(std::span<const char> bytes, std::span<const uint64_t> ends,
                         std::shared_ptr<const void> owner)
    : bytes_(bytes), ends_(ends), owner_(std::move(owner)) {
  if (!std::ranges::is_sorted(ends_) || (!ends_.empty() && ends_.back() > bytes_.size())) {
    throw Error(ErrorKind::config, "the names of objects do not follow each other");
  }
}

ObjectNames::ObjectNames(const std::vector<std::string>& names) {
  struct Copies {
    std::string bytes;
    std::vector<uint64_t> ends;
  };
  const auto copies = std::make_shared<Copies>();
  for (const std::string& name : names) {
    copies->bytes += name;
    copies->ends.push_back(copies->bytes.size());
  }
  bytes_ = copies->bytes;
  ends_ = copies->ends;
  owner_ = copies;
}

std::string_view ObjectNames::operator[](int64_t object) const {
  const auto index = static_cast<size_t>(object);
  const uint64_t begin = index == 0 ? 0 : ends_[index - 1];
  return {bytes_.data() + begin, ends_[index] - begin};
}

}  // namespace s3io
