// What the objects of a data set are called, by number. A column, in memory that somebody else may
// keep: a data set may have millions of them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace s3io {

class ObjectNames {
 public:
  // The bytes of all names, one after the other, and where each ends. `owner` keeps both. Throws
  // Error(config) where ends descend, or reach beyond the bytes.
  ObjectNames(std::span<const char> bytes, std::span<const uint64_t> ends,
              std::shared_ptr<const void> owner);
  // A copy.
  explicit ObjectNames(const std::vector<std::string>& names);

  int64_t count() const { return static_cast<int64_t>(ends_.size()); }
  std::string_view operator[](int64_t object) const;

 private:
  std::span<const char> bytes_;
  std::span<const uint64_t> ends_;
  std::shared_ptr<const void> owner_;
};

}  // namespace s3io
