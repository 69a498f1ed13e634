#include "http/s3_uploads.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/printable.h"
#include "http/s3_xml.h"

namespace s3io {
namespace {

constexpr size_t kMostUploads = 1'000'000;
constexpr int kMostUploadPages = 10'000;
constexpr size_t kMostUploadPageBytes = size_t{16} << 20;

// By name, as they are signed.
std::string query_of_page(const std::string& prefix, const UploadPage& before) {
  std::string query;
  const auto add = [&](std::string_view name, std::string_view value) {
    append(query, name);
    append_percent_encoded(query, value, false);
  };
  if (!before.next_key.empty()) add("key-marker=", before.next_key);
  add(query.empty() ? "max-uploads=" : "&max-uploads=", "1000");
  add("&prefix=", prefix);
  if (!before.next_id.empty()) add("&upload-id-marker=", before.next_id);
  return query + "&uploads=";
}

// This machine's clock may be wrong: who aborts by it aborts what is at work.
std::optional<int64_t> age_of(const ListedUpload& upload, const ResponseHead& head) {
  if (head.date() < 0) return std::nullopt;
  return std::max<int64_t>(0, head.date() - upload.begun_s);
}

// In quotes for a shell.
std::string for_shell(std::string_view text) {
  std::string quoted = "'";
  for (const char one : text) {
    if (one == '\'') quoted += "'\\'";
    quoted += one;
  }
  return quoted + "'";
}

}  // namespace

std::vector<OpenUpload> list_uploads(S3Client& client, const std::string& prefix,
                                     const WaitCallback& on_wait) {
  const S3Path name = parse_s3_path(prefix);
  S3Call call;
  call.object.bucket = name.bucket;
  call.http.most_text_bytes = kMostUploadPageBytes;
  std::vector<OpenUpload> uploads;
  UploadPage page;
  const auto refuse = [](std::string_view problem) {
    throw Error(ErrorKind::data, std::string(problem));
  };
  for (int pages = 1;; ++pages) {
    call.query = query_of_page(name.key, page);
    client.call(call, on_wait);
    try {
      const UploadPage before = std::exchange(page, parse_upload_page(call.http.text, name.key));
      for (ListedUpload& one : page.uploads) {
        uploads.push_back({message("s3://", name.bucket, "/", one.key), std::move(one.id),
                           age_of(one, call.http.head)});
      }
      if (page.is_last) break;
      const bool goes_on = page.next_key != before.next_key || page.next_id != before.next_id;
      if (!goes_on || pages == kMostUploadPages) refuse("the list does not end");
      if (uploads.size() > kMostUploads) {
        refuse(message("there are more than ", kMostUploads, " uploads; name a longer prefix"));
      }
    } catch (const Error& error) {
      throw Error(ErrorKind::data,
                  message(prefix, ": ", without_secrets(error.what(), *call.credentials)));
    }
  }
  const auto place = [](const OpenUpload& one) { return std::tie(one.path, one.id); };
  std::ranges::sort(uploads, {}, place);
  if (std::ranges::adjacent_find(uploads, {}, place) != uploads.end()) {
    throw Error(ErrorKind::data, message(on_one_line(prefix), ": the list has an upload twice"));
  }
  return uploads;
}

void abort_upload(S3Client& client, const S3Path& object, const std::string& id,
                  const WaitCallback& on_wait) {
  if (object.key.empty() || id.empty()) {
    throw Error(ErrorKind::config, "an upload to abort has the path of an object and an id");
  }
  S3Call call;
  call.method = "DELETE";
  call.object = object;
  call.query = query_of_upload(id);
  try {
    client.call(call, on_wait);
  } catch (const Error&) {
    const bool is_gone = call.error && call.http.outcome == HttpOutcome::replied &&
                         call.http.head.status() == 404 &&
                         parse_s3_error(call.http.text).code != "NoSuchBucket";
    if (!is_gone) throw;
  }
}

// It names a prefix: a terminal takes no control characters, and the error is one line.
std::string how_to_find_upload(const std::string& path) {
  const auto is_control = [](unsigned char one) { return one < 0x20 || one == 0x7f; };
  const std::string prefix(path.begin(), std::ranges::find_if(path, is_control));
  return message("`python -m torch_s3io uploads ", for_shell(prefix),
                 "` lists it, and aborts it with --abort-older");
}

std::string query_of_upload(const std::string& id) {
  std::string query = "uploadId=";
  append_percent_encoded(query, id, false);
  return query;
}

}  // namespace s3io
