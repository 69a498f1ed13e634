#include "http/s3_objects.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "http/s3_range_reader.h"

namespace s3io {
namespace {

constexpr int64_t kMostPartBytes = int64_t{1} << 30;
constexpr size_t kMostListed = 10'000'000;
constexpr size_t kMostPageBytes = size_t{16} << 20;

ObjectVersion version_of(int64_t size_bytes, const std::string& etag) {
  return {.size_bytes = size_bytes, .modified_ns = etag_number(etag)};
}

void write_list_query(const std::string& prefix, const std::string& token, std::string& out) {
  out.clear();
  if (!token.empty()) {
    out += "continuation-token=";
    append_percent_encoded(out, token, false);
    out += '&';
  }
  out += "list-type=2&prefix=";
  append_percent_encoded(out, prefix, false);
}

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

std::pair<ObjectVersion, std::string> S3Objects::look_up(const std::string& path) {
  S3Call call;
  call.method = "HEAD";
  call.object = parse_s3_path(path);
  client_->call(call);
  const ResponseHead& head = call.http.head;
  if (head.content_length() < 0 || head.etag().empty()) {
    throw Error(ErrorKind::read, message(path,
                                         ": the server does not say how long it is, or which "
                                         "version (Content-Length, ETag)"));
  }
  return {version_of(head.content_length(), head.etag()), head.etag()};
}

ObjectInfo S3Objects::stat(const std::string& path) {
  return {.version = look_up(path).first, .block_bytes = 0};
}

bool S3Objects::honours_if_match(const std::string& path) {
  const auto [version, etag] = look_up(path);
  std::array<std::byte, 2> bytes{};
  S3Call call;
  call.object = parse_s3_path(path);
  call.headers = {{"range", "bytes=0-1"}, {"if-match", "\"of-no-version\""}};
  call.http.expected = {0, std::ssize(bytes), version.size_bytes, etag, version.modified_ns};
  call.http.data = bytes.data();
  try {
    client_->call(call);
  } catch (const Error&) {
    if (call.http.head.status() == 412) return true;
    throw;
  }
  return false;
}

std::vector<ListedObject> S3Objects::list_objects(const std::string& prefix,
                                                  const WaitCallback& on_wait) {
  S3Call call;
  call.object.bucket = parse_s3_path(prefix).bucket;
  call.http.most_text_bytes = kMostPageBytes;
  const std::string key_prefix = parse_s3_path(prefix).key;
  std::vector<ListedObject> objects;
  std::string token;
  const auto refuse = [&](std::string_view problem) {
    return Error(ErrorKind::data, message(prefix, ": ", problem));
  };
  do {
    write_list_query(key_prefix, token, call.query);
    client_->call(call, on_wait);
    ListPage page;
    try {
      page = parse_list_page(call.http.text, key_prefix);
    } catch (const Error& error) {
      throw refuse(error.what());
    }
    std::ranges::move(page.objects, std::back_inserter(objects));
    if (objects.size() > kMostListed) {
      throw refuse(message("there are more than ", kMostListed, " objects; name a longer prefix"));
    }
    if (!token.empty() && page.next_token == token) throw refuse("the list does not end");
    token = page.next_token;
  } while (!token.empty());
  std::ranges::sort(objects, {}, &ListedObject::key);
  const auto twice = std::ranges::adjacent_find(objects, {}, &ListedObject::key);
  if (twice != objects.end()) throw refuse("the list names an object twice");
  return objects;
}

std::vector<std::string> S3Objects::list(const std::string& prefix) {
  const std::string bucket = message("s3://", parse_s3_path(prefix).bucket, "/");
  std::vector<std::string> paths;
  for (const ListedObject& object : list_objects(prefix)) paths.push_back(bucket + object.key);
  return paths;
}

std::shared_ptr<Object> S3Objects::open(const std::string& path) {
  auto [version, etag] = look_up(path);
  return std::make_shared<S3Object>(path, version, std::move(etag));
}

std::shared_ptr<Object> S3Objects::open(const std::string& path, const ObjectVersion& version) {
  return std::make_shared<S3Object>(path, version, "");
}

std::unique_ptr<RangeReader> S3Objects::make_reader(const ReaderOptions& options,
                                                    ReadCounters& counters) {
  return std::make_unique<S3RangeReader>(client_, options.depth, part_bytes_, counters);
}

}  // namespace s3io
