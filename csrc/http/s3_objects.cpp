#include "http/s3_objects.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "http/etag.h"
#include "http/s3_range_reader.h"

namespace s3io {
namespace {

constexpr int64_t kMostPartBytes = int64_t{1} << 30;
constexpr size_t kMostListed = 10'000'000;
constexpr size_t kMostListedBytes = size_t{4} << 30;  // of their keys and ETags
constexpr size_t kMostPageBytes = size_t{16} << 20;
constexpr int kMostEmptyPages = 1000;  // one after the other
constexpr int kMostUnreadable = 3;     // replies for one page, before the server is given up

void write_list_query(const std::string& prefix, const std::string& token, int64_t most,
                      std::string& out) {
  out.clear();
  if (!token.empty()) {
    out += "continuation-token=";
    append_percent_encoded(out, token, false);
    out += '&';
  }
  out += "list-type=2";
  if (most > 0) out += message("&max-keys=", most);
  out += "&prefix=";
  append_percent_encoded(out, prefix, false);
}

// Empty where there is none of all bytes: that of an object in parts may be of their checksums.
std::string checksum_of_all(const ResponseHead& head) {
  constexpr size_t kBase64Bytes = 8;
  const std::string& type = head.checksum_type();
  const bool is_of_all =
      type.empty() ? head.etag().find('-') == std::string::npos : type == "FULL_OBJECT";
  const bool is_one = head.checksum_crc32c().size() == kBase64Bytes;
  return is_of_all && is_one ? head.checksum_crc32c() : std::string();
}

// All pages of a list. It ends, whatever the server says: new keys are bounded, and so are pages
// that bring none.
class Listing {
 public:
  // Throws Error(data) where the list is too long, does not end, or names an object twice.
  void add(ListPage page) {
    empty_pages_ = page.objects.empty() ? empty_pages_ + 1 : 0;
    if (empty_pages_ > kMostEmptyPages) refuse("the list does not end: its pages are empty");
    for (ListedObject& object : page.objects) {
      bytes_ += object.key.size() + object.etag.size();
      objects_.push_back(std::move(object));
    }
    if (objects_.size() > kMostListed || bytes_ > kMostListedBytes) {
      refuse(message("there are more than ", kMostListed, " objects, or than ",
                     kMostListedBytes >> 30, " GiB of names; name a longer prefix"));
    }
    // Not at each page, which would cost the square of their number.
    if (objects_.size() >= 2 * sorted_) sort();
  }

  bool empty() const { return objects_.empty(); }

  // Sorted by their keys.
  std::vector<ListedObject> take() {
    sort();
    return std::move(objects_);
  }

 private:
  [[noreturn]] static void refuse(const std::string& problem) {
    throw Error(ErrorKind::data, problem);
  }

  // Not every server sends keys in the order of their bytes.
  void sort() {
    std::ranges::sort(objects_, {}, &ListedObject::key);
    if (std::ranges::adjacent_find(objects_, {}, &ListedObject::key) != objects_.end()) {
      refuse("the list names an object twice");
    }
    sorted_ = objects_.size();
  }

  std::vector<ListedObject> objects_;
  size_t sorted_ = 0;  // the first ones
  size_t bytes_ = 0;
  int empty_pages_ = 0;
};

}  // namespace

S3Objects::S3Objects(Options options, std::shared_ptr<CredentialSource> credentials,
                     std::shared_ptr<Transport> transport)
    : part_bytes_(options.part_bytes),
      client_(std::make_shared<S3Client>(std::move(options.s3), std::move(credentials),
                                         std::move(transport))) {
  if (part_bytes_ < 1 || part_bytes_ > kMostPartBytes) {
    throw Error(ErrorKind::config, message("part_bytes must be between 1 and ", kMostPartBytes,
                                           ", not ", part_bytes_));
  }
}

void S3Objects::look_up(S3Call& call, const std::string& path, const WaitCallback& on_wait) {
  call.method = "HEAD";
  call.object = parse_s3_path(path);
  client_->call(call, on_wait);
  const ResponseHead& head = call.http.head;
  if (head.status() != 200 || head.content_length() < 0 || head.etag().empty()) {
    throw Error(ErrorKind::read, message(path,
                                         ": the server does not say how long it is, or which "
                                         "version (Content-Length, ETag)"));
  }
}

ObjectInfo S3Objects::stat(const std::string& path) {
  S3Call call;
  look_up(call, path, {});
  const ResponseHead& head = call.http.head;
  return {.version = version_of(head.content_length(), head.etag()), .block_bytes = 0};
}

bool S3Objects::honours_if_match(const std::string& path, const ObjectVersion& version,
                                 const WaitCallback& on_wait) {
  std::array<std::byte, 2> bytes{};
  S3Call call;
  call.object = parse_s3_path(path);
  call.headers = {{"range", "bytes=0-1"}, {"if-match", "\"of-no-version\""}};
  call.may_repeat = false;
  call.http.expected = {0, std::ssize(bytes), version.size_bytes, {}, version.modified_ns};
  call.http.data = bytes.data();
  try {
    client_->call(call, on_wait);
  } catch (const Error&) {
    if (call.http.head.status() == 412) return true;
    throw;
  }
  return false;
}

// A page that is none is asked for again: nothing may have said that it was cut.
ListPage S3Objects::read_page(S3Call& call, const std::string& key_prefix,
                              const WaitCallback& on_wait) {
  for (int tried = 1;; ++tried) {
    client_->call(call, on_wait);
    try {
      return parse_list_page(call.http.text, key_prefix);
    } catch (const Error& error) {
      if (tried < kMostUnreadable) continue;
      // A key may be what the server was sent.
      const std::string why = without_secrets(error.what(), *call.credentials);
      throw Error(ErrorKind::data,
                  message("s3://", call.object.bucket, "/", key_prefix, ": ", why));
    }
  }
}

std::vector<ListedObject> S3Objects::list_objects(const std::string& prefix,
                                                  const WaitCallback& on_wait, int64_t most) {
  S3Call call;
  call.object.bucket = parse_s3_path(prefix).bucket;
  call.http.most_text_bytes = kMostPageBytes;
  const std::string key_prefix = parse_s3_path(prefix).key;
  Listing listing;
  std::string token;
  do {
    write_list_query(key_prefix, token, most, call.query);
    ListPage page = read_page(call, key_prefix, on_wait);
    try {
      if (!token.empty() && page.next_token == token) {
        throw Error(ErrorKind::data, "the list does not end");
      }
      token = page.next_token;
      listing.add(std::move(page));
    } catch (const Error& error) {
      throw Error(ErrorKind::data, message(prefix, ": ", error.what()));
    }
  } while (!token.empty() && (most == 0 || listing.empty()));
  return listing.take();
}

std::vector<std::string> S3Objects::list(const std::string& prefix) {
  const std::string bucket = message("s3://", parse_s3_path(prefix).bucket, "/");
  std::vector<std::string> paths;
  for (const ListedObject& object : list_objects(prefix)) paths.push_back(bucket + object.key);
  return paths;
}

std::shared_ptr<S3Object> S3Objects::open(const std::string& path, const WaitCallback& on_wait) {
  S3Call call;
  look_up(call, path, on_wait);
  const ResponseHead& head = call.http.head;
  return std::make_shared<S3Object>(path, version_of(head.content_length(), head.etag()),
                                    head.etag());
}

std::shared_ptr<S3Object> S3Objects::open_whole(const std::string& path,
                                                const WaitCallback& on_wait) {
  S3Call call;
  call.headers = {{"x-amz-checksum-mode", "ENABLED"}};
  look_up(call, path, on_wait);
  const ResponseHead& head = call.http.head;
  return std::make_shared<S3Object>(path, version_of(head.content_length(), head.etag()),
                                    head.etag(), checksum_of_all(head));
}

std::shared_ptr<Object> S3Objects::open(const std::string& path) {
  return open(path, WaitCallback());
}

std::shared_ptr<Object> S3Objects::open(const std::string& path, const ObjectVersion& version) {
  std::string etag = etag_of(version);
  if (etag.empty()) etag = known_etags_.find(version.modified_ns);
  return std::make_shared<S3Object>(path, version, std::move(etag));
}

std::unique_ptr<RangeReader> S3Objects::make_reader(const ReaderOptions& options,
                                                    ReadCounters& counters) {
  return std::make_unique<S3RangeReader>(client_, options.depth, part_bytes_, counters);
}

}  // namespace s3io
