// Several stores as one, by what a path begins with ("s3://", or "s3://bucket/"; "" where it has no
// scheme): what a mixture of data sets in different places reads through.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "store/store.h"

namespace s3io {

class CompositeStore final : public Store {
 public:
  // By prefixes, of which none begins with another one. Throws Error(config) where there are none.
  explicit CompositeStore(const std::map<std::string, std::shared_ptr<Store>>& stores);

  ObjectInfo stat(const std::string& path) override { return store_of(path).stat(path); }
  std::vector<std::string> list(const std::string& prefix) override {
    return store_of(prefix).list(prefix);
  }
  std::shared_ptr<Object> open(const std::string& path) override;
  std::shared_ptr<Object> open(const std::string& path, const ObjectVersion& version) override;
  int64_t max_open_objects() const override;  // the fewest of all
  // One thread waits for all of them in one place.
  std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options,
                                           ReadCounters& counters) override;

 private:
  size_t index_of(const std::string& path) const;
  Store& store_of(const std::string& path) const { return *stores_[index_of(path)]; }

  std::vector<std::string> prefixes_;
  std::vector<std::shared_ptr<Store>> stores_;  // as the prefixes
};

}  // namespace s3io
