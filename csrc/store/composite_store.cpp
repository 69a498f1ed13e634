#include "store/composite_store.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace s3io {
namespace {

// How long one sleeps for a reader that cannot be waited for from outside.
constexpr milliseconds kUnseenSlice{1};

// An object and the store that it is from.
class StoredObject final : public Object {
 public:
  StoredObject(std::shared_ptr<Object> object, size_t store)
      : object_(std::move(object)), store_(store) {}

  const std::string& path() const override { return object_->path(); }
  int64_t size() const override { return object_->size(); }
  int64_t block_bytes() const override { return object_->block_bytes(); }
  void check_unchanged() const override { object_->check_unchanged(); }
  bool is_checked_by_reads() const override { return object_->is_checked_by_reads(); }
  void keep_open() override { object_->keep_open(); }
  int64_t prefetch(int64_t offset, int64_t length) override {
    return object_->prefetch(offset, length);
  }

  Object& object() const { return *object_; }
  size_t store() const { return store_; }

 private:
  const std::shared_ptr<Object> object_;
  const size_t store_;
};

class CompositeReader final : public RangeReader {
 public:
  explicit CompositeReader(std::vector<std::unique_ptr<RangeReader>> readers)
      : readers_(std::move(readers)) {
    waited_for_.reserve(readers_.size());
  }

  void push(RangeRead& range) override {
    auto& object = static_cast<StoredObject&>(*range.object);
    range.object = &object.object();
    readers_[object.store()]->push(range);
  }

  void run(std::vector<RangeRead*>& finished, milliseconds timeout) override {
    const size_t finished_before = finished.size();
    const Clock::time_point deadline = Clock::now() + timeout;
    while (!idle()) {
      const bool had_backlog = has_backlog();
      const int64_t completions_before = completions();
      for (const auto& reader : readers_) {
        if (!reader->idle()) reader->run(finished, milliseconds(0));
      }
      const bool caught_up = had_backlog && !has_backlog();
      if (finished.size() > finished_before || caught_up || Clock::now() >= deadline) return;
      // Parts that came back make room for others, which only the next call begins.
      if (completions() > completions_before) continue;
      wait(std::chrono::ceil<milliseconds>(deadline - Clock::now()));
    }
  }

  bool has_backlog() const override {
    return std::ranges::any_of(readers_, [](const auto& one) { return one->has_backlog(); });
  }
  bool idle() const override {
    return std::ranges::all_of(readers_, [](const auto& one) { return one->idle(); });
  }
  int64_t completions() const override {
    int64_t completions = 0;
    for (const auto& reader : readers_) completions += reader->completions();
    return completions;
  }
  bool abandon(milliseconds timeout) noexcept override {
    // One that is dead leaves the others their time.
    const milliseconds each = timeout / static_cast<int64_t>(readers_.size());
    bool is_empty = true;
    for (const auto& reader : readers_) is_empty = reader->abandon(each) && is_empty;
    return is_empty;
  }
  bool register_buffer(int index, std::span<std::byte> memory) override {
    bool helps = false;
    for (const auto& reader : readers_) helps = reader->register_buffer(index, memory) || helps;
    return helps;
  }
  std::string_view name() const override {
    return std::ranges::all_of(readers_,
                               [&](const auto& one) { return one->name() == first_name(); })
               ? first_name()
               : "mixed";
  }

 private:
  std::string_view first_name() const { return readers_.front()->name(); }

  // Until one of them has something to do, or for at most so long.
  void wait(milliseconds timeout) {
    timeout = std::clamp(timeout, milliseconds(0), kWaitSlice);
    waited_for_.clear();
    for (const auto& reader : readers_) {
      if (reader->idle()) continue;
      const int fd = reader->ready_fd();
      if (fd < 0) timeout = std::min(timeout, kUnseenSlice);
      waited_for_.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    }
    // Whatever it says, the readers are asked again.
    static_cast<void>(
        ::poll(waited_for_.data(), waited_for_.size(), static_cast<int>(timeout.count())));
  }

  const std::vector<std::unique_ptr<RangeReader>> readers_;  // as the stores
  std::vector<pollfd> waited_for_;
};

}  // namespace

CompositeStore::CompositeStore(const std::map<std::string, std::shared_ptr<Store>>& stores) {
  if (stores.empty()) throw Error(ErrorKind::config, "there are no stores");
  for (const auto& [prefix, store] : stores) {
    prefixes_.push_back(prefix);
    stores_.push_back(store);
  }
}

size_t CompositeStore::index_of(const std::string& path) const {
  const bool is_file = path.find("://") == std::string::npos;
  const auto found = std::ranges::find_if(prefixes_, [&](const std::string& prefix) {
    return prefix.empty() ? is_file : path.starts_with(prefix);
  });
  if (found == prefixes_.end()) {
    throw Error(ErrorKind::config, message(path, ": is in none of the stores of this data set"));
  }
  return static_cast<size_t>(found - prefixes_.begin());
}

std::shared_ptr<Object> CompositeStore::open(const std::string& path) {
  const size_t index = index_of(path);
  return std::make_shared<StoredObject>(stores_[index]->open(path), index);
}

std::shared_ptr<Object> CompositeStore::open(const std::string& path,
                                             const ObjectVersion& version) {
  const size_t index = index_of(path);
  return std::make_shared<StoredObject>(stores_[index]->open(path, version), index);
}

int64_t CompositeStore::max_open_objects() const {
  int64_t fewest = stores_.front()->max_open_objects();
  for (const auto& store : stores_) fewest = std::min(fewest, store->max_open_objects());
  return fewest;
}

std::unique_ptr<RangeReader> CompositeStore::make_reader(const ReaderOptions& options,
                                                         ReadCounters& counters) {
  std::vector<std::unique_ptr<RangeReader>> readers;
  for (const auto& store : stores_) readers.push_back(store->make_reader(options, counters));
  return std::make_unique<CompositeReader>(std::move(readers));
}

}  // namespace s3io
