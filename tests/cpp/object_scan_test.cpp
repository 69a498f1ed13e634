// Chains of headers in objects of a store that misbehaves. What a chain finds is the test's own.
#include "reader/object_scan.h"

#include <doctest/doctest.h>

#include <cstring>
#include <map>

#include "leak_check.h"
#include "memory_store.h"

namespace s3io::testing::object_scan_test {
namespace {

// Headers of 8 bytes: the distance to the next one, or 0 at the last.
class DistanceChain final : public HeaderChain {
 public:
  DistanceChain(std::string path, int64_t size, std::vector<int64_t>& found)
      : path_(std::move(path)), size_(size), found_(found) {
    if (size > 0) wanted_ = {0, 8};
  }

  void take(std::span<const std::byte> bytes) override {
    REQUIRE(bytes.size() == 8);
    int64_t distance = 0;
    std::memcpy(&distance, bytes.data(), sizeof(distance));
    found_.push_back(wanted_.offset);
    if (distance > size_ - 8 - wanted_.offset) {
      throw Error(ErrorKind::data, message(path_, ": too far at byte ", wanted_.offset));
    }
    wanted_ = distance == 0 ? ByteRange{} : ByteRange{wanted_.offset + distance, 8};
  }

 private:
  const std::string path_;
  const int64_t size_;
  std::vector<int64_t>& found_;
};

struct Objects {
  explicit Objects(const MemoryStore::Options& options)
      : store(std::make_shared<MemoryStore>(options)) {}

  // With headers at these distances.
  void add(const std::vector<int64_t>& distances) {
    const std::string path = "object_" + std::to_string(objects.size());
    int64_t at = 0;
    std::vector<int64_t>& places = expected.emplace_back();
    for (const int64_t distance : distances) {
      places.push_back(at);
      at += distance;
    }
    places.push_back(at);
    Bytes bytes = random_bytes(at + 8, objects.size());
    for (size_t header = 0; header < places.size(); ++header) {
      const int64_t distance = header < distances.size() ? distances[header] : 0;
      std::memcpy(bytes.data() + places[header], &distance, sizeof(distance));
    }
    store->put(path, std::move(bytes));
    objects.push_back({path});
  }

  ScanCounts scan(const ScanOptions& options = {}, const ScanCallback& on_progress = {}) {
    found.assign(objects.size(), {});
    return scan_objects(
        store, objects,
        [&](size_t number, const std::string& path, int64_t size) {
          return std::make_unique<DistanceChain>(path, size, found[number]);
        },
        options, on_progress);
  }

  const std::shared_ptr<MemoryStore> store;
  std::vector<ObjectToScan> objects;
  std::vector<std::vector<int64_t>> expected;
  std::vector<std::vector<int64_t>> found;
};

std::vector<int64_t> distances(int64_t count, int64_t least, int64_t most, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> made(static_cast<size_t>(count));
  for (int64_t& one : made) {
    one = least + static_cast<int64_t>(random() % static_cast<uint64_t>(most - least + 1));
  }
  return made;
}

TEST_CASE("all headers of many objects are found, at any depth and in blocks of any size") {
  const LeakCheck leaks;
  for (const int64_t block : {int64_t{1}, int64_t{512}, int64_t{4096}}) {
    for (const int depth : {1, 3, 32}) {
      CAPTURE(block);
      CAPTURE(depth);
      Objects objects({.block_bytes = block, .max_open = 8, .seed = 7});
      for (uint64_t number = 0; number < 20; ++number) {
        const int64_t most = std::array{9, 500, 9000, 70'000}[number % 4];
        objects.add(distances(number % 7 == 0 ? 0 : 150, 8, most, number));
      }
      ScanProgress last;
      const ScanCounts counts =
          objects.scan({.depth = depth}, [&](const ScanProgress& now) { last = now; });
      CHECK(objects.found == objects.expected);
      CHECK(counts.reads > 20);
      CHECK(last.objects == 20);
      int64_t bytes = 0;
      for (const auto& places : objects.expected) bytes += places.back() + 8;
      CHECK(last.bytes == bytes);
      CHECK(objects.store->most_open_objects() <= 8);
      CHECK(objects.store->open_objects() == 0);
    }
  }
}

TEST_CASE("a read serves all headers in 4 KiB, and 1 MiB where they lie near to each other") {
  Objects far({});
  far.add(distances(300, 50'000, 60'000, 1));
  CHECK(far.scan().reads == 301);
  Objects pairs({});  // a large member and a small one in turn
  std::vector<int64_t> pattern;
  for (int pair = 0; pair < 200; ++pair) pattern.insert(pattern.end(), {1000, 60'000});
  pairs.add(pattern);
  CHECK(pairs.scan().reads == 201);
  Objects near({});
  near.add(distances(5000, 900, 1100, 1));  // 5 MB
  const int64_t reads = near.scan().reads;
  CHECK(reads >= 64);
  CHECK(reads <= 64 + 6);
  CHECK(near.found == near.expected);
  Objects both({});  // it is decided again
  pattern = distances(5000, 900, 1100, 1);
  const std::vector<int64_t> large = distances(300, 500'000, 500'001, 1);
  pattern.insert(pattern.end(), large.begin(), large.end());
  both.add(pattern);
  const ScanCounts counts = both.scan();
  CHECK(counts.reads <= 70 + 300);
  CHECK(counts.bytes < 75'000'000);
  CHECK(both.found == both.expected);
}

TEST_CASE("no object, or objects that are empty, need no read") {
  Objects objects({});
  CHECK(objects.scan().reads == 0);
  for (const char* path : {"a", "b", "c"}) {
    objects.store->put(path, {});
    objects.objects.push_back({path});
  }
  ScanProgress last;
  CHECK(objects.scan({}, [&](const ScanProgress& now) { last = now; }).reads == 0);
  CHECK(last.objects == 3);
}

TEST_CASE("errors name their object, and end the scan") {
  const LeakCheck leaks;
  const auto objects_with = [](const MemoryStore::Options& options) {
    auto objects = std::make_unique<Objects>(options);
    for (uint64_t number = 0; number < 5; ++number) {
      objects->add(distances(100, 5000, 9000, number));
    }
    return objects;
  };
  auto objects = objects_with({.failing_read = 77});
  Caught error = caught([&] { objects->scan(); });
  CHECK(error.kind == ErrorKind::read);
  CHECK(error.says("this read fails"));
  objects = objects_with({});
  objects->objects.push_back({"missing"});
  CHECK(caught([&] { objects->scan(); }).kind == ErrorKind::not_found);
  objects = objects_with({});
  Bytes damaged(16, std::byte{0x7f});
  objects->store->put("damaged", damaged);
  objects->objects.push_back({"damaged"});
  error = caught([&] { objects->scan(); });
  CHECK(error.kind == ErrorKind::data);
  CHECK(error.says("damaged: too far at byte 0"));
  CHECK(objects->store->open_objects() == 0);
}

TEST_CASE("an object that is another version than expected, or becomes one, is an error") {
  Objects objects({});
  objects.add(distances(10, 5000, 9000, 1));
  objects.objects[0].version = objects.store->stat("object_0").version;
  objects.scan();
  CHECK(objects.found == objects.expected);
  const auto change = [&](const ScanProgress&) { objects.store->put("object_0", {}); };
  CHECK(caught([&] { objects.scan({}, change); }).kind == ErrorKind::file_changed);
  CHECK(caught([&] { objects.scan(); }).kind == ErrorKind::file_changed);
}

TEST_CASE("reads that never come end in a timeout that names an object") {
  for (const bool forgets : {true, false}) {
    CAPTURE(forgets);
    [[maybe_unused]] const LeftBehind on_purpose;
    Objects objects({.lost_reads_from = 5, .forgets = forgets});
    for (uint64_t number = 0; number < 3; ++number) {
      objects.add(distances(100, 5000, 9000, number));
    }
    const Caught error = caught([&] { objects.scan({.read_timeout_s = 0.1}); });
    CHECK(error.kind == ErrorKind::read_timeout);
    CHECK(error.says("object_"));
    CHECK(error.says("raise read_timeout_s"));
    CHECK((objects.store->open_objects() == 0) == forgets);
  }
}

TEST_CASE("who is called back may give up, and options that make no sense are refused") {
  const LeakCheck leaks;
  Objects objects({});
  objects.add(distances(100, 5000, 9000, 1));
  const auto give_up = [](const ScanProgress&) { throw std::runtime_error("Ctrl-C"); };
  CHECK_THROWS_WITH(objects.scan({}, give_up), "Ctrl-C");
  CHECK(objects.store->open_objects() == 0);
  for (const ScanOptions& options :
       {ScanOptions{.depth = 0}, ScanOptions{.depth = 5000}, ScanOptions{.read_timeout_s = 0}}) {
    CHECK(caught([&] { objects.scan(options); }).kind == ErrorKind::config);
  }
}

}  // namespace
}  // namespace s3io::testing::object_scan_test
