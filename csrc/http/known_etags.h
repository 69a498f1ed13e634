// ETags that cannot be made again from the versions that have their numbers.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace s3io {

// Any thread.
class KnownEtags {
 public:
  // With its quotes or without. Nothing where it can be made again (http/etag.h), or is none.
  void add(std::string_view etag);
  // The ETag of this number; empty where it is not known, or where two have it.
  std::string find(int64_t number) const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<int64_t, std::string> etags_;  // by their numbers
};

}  // namespace s3io
