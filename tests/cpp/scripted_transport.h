// S3 in memory behind the transport's seam: it serves objects as S3 does, but for what a test makes
// of its replies. No network, no thread, no time.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "http/s3_client.h"
#include "http/s3_new_object.h"
#include "http/transport.h"
#include "http/url.h"
#include "testing.h"

namespace s3io::testing {

struct ScriptedReply {
  HttpOutcome outcome = HttpOutcome::replied;  // broken: at its end
  std::string status = "200 OK";
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  bool is_lost = false;  // never comes, until it is cancelled

  void set(const std::string& name, const std::string& value) {
    remove(name);
    headers.emplace_back(name, value);
  }
  void remove(const std::string& name) {
    std::erase_if(headers, [&](const auto& header) { return header.first == name; });
  }
  // An error as S3 sends it.
  static ScriptedReply error(const std::string& status, const std::string& code,
                             const std::string& more = "") {
    ScriptedReply reply{.status = status, .headers = {{"x-amz-request-id", "REQUEST1"}}};
    reply.body = "<Error><Code>" + code + "</Code>" + more + "</Error>";
    return reply;
  }
};

// The text whose bytes are written as %XX where they are so.
inline std::string percent_decoded(std::string_view text) {
  std::string decoded;
  for (size_t at = 0; at < text.size(); ++at) {
    decoded += text[at];
    if (text[at] != '%') continue;
    decoded.back() = static_cast<char>(std::stoi(std::string(text.substr(at + 1, 2)), nullptr, 16));
    at += 2;
  }
  return decoded;
}

inline std::string header_of(const HttpRequest& request, const std::string& name) {
  const auto found = std::ranges::find(request.headers, name, &HttpHeader::name);
  return found == request.headers.end() ? "" : found->value;
}

class ScriptedS3 final : public Transport {
 public:
  // Changes the reply to a request, by its number from 0 on.
  using Script = std::function<void(int, const HttpRequest&, ScriptedReply&)>;

  Script script;
  // Requests that the server does not act upon; it answers as if it did nothing.
  std::function<bool(int, const HttpRequest&)> ignores;
  bool heeds_conditions = true;  // of writes
  size_t page_size = 1000;
  bool keeps_metadata = true;  // of objects

  void put(const std::string& path, const Bytes& bytes) {
    const std::lock_guard lock(mutex_);
    objects_[path] = {std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                      "version-" + std::to_string(++versions_)};
  }
  void remove(const std::string& path) {
    const std::lock_guard lock(mutex_);
    objects_.erase(path);
  }
  // What is there; nothing: no object.
  std::string bytes_of(const std::string& path) const {
    const auto found = objects_.find(path);
    return found == objects_.end() ? "" : found->second.bytes;
  }
  size_t uploads() const { return uploads_.size(); }  // that are neither complete nor aborted
  // Of the last upload that was completed, in their order.
  const std::vector<size_t>& part_sizes() const { return part_sizes_; }
  int requests() const { return requests_; }

  void submit(HttpRequest& request) override {
    request.clear_reply();
    const int number = requests_++;
    const bool is_ignored = ignores && ignores(number, request);
    ScriptedReply reply = is_ignored ? ScriptedReply{.status = "500 Internal"} : answer(request);
    if (script) script(number, request, reply);
    if (reply.is_lost) {
      const std::lock_guard lock(mutex_);
      lost_.push_back(&request);
      return;
    }
    deliver(request, reply);
    request.inbox->put(request);
  }

  void cancel(HttpRequest& request) noexcept override {
    const std::lock_guard lock(mutex_);
    if (std::erase(lost_, &request) == 0) return;
    request.outcome = HttpOutcome::cancelled;
    request.inbox->put(request);
  }

 private:
  struct Version {
    std::string bytes;
    std::string etag;
    std::string write_id = {};
  };
  struct Upload {
    std::string path;
    std::string write_id;
    std::map<int, std::string> parts = {};
  };

  // As a transport does with what comes, in pieces.
  static void deliver(HttpRequest& request, const ScriptedReply& reply) {
    if (reply.outcome != HttpOutcome::replied && reply.outcome != HttpOutcome::broken) {
      request.outcome = reply.outcome;
      request.problem = "as the script says";
      return;
    }
    bool is_well = request.head.add_line("HTTP/1.1 " + reply.status + "\r\n");
    for (const auto& [name, value] : reply.headers) {
      is_well = is_well && request.head.add_line(name + ": " + value + "\r\n");
    }
    if (!request.accept_head()) return;
    const std::span bytes = std::as_bytes(std::span(reply.body));
    for (size_t at = 0; at < bytes.size(); at += 1000) {
      if (!request.add_body(bytes.subspan(at, std::min<size_t>(1000, bytes.size() - at)))) return;
    }
    if (reply.outcome == HttpOutcome::broken) {
      request.outcome = HttpOutcome::broken;
      request.problem = "as the script says";
    } else {
      request.finish_body();
    }
  }

  ScriptedReply answer(const HttpRequest& request) {
    const std::lock_guard lock(mutex_);
    const std::string rest = request.url.substr(request.url.find('/', 8) + 1);
    const size_t question = std::min(rest.find('?'), rest.size());
    const std::string path = "s3://" + percent_decoded(rest.substr(0, question));
    const std::string query = rest.substr(std::min(rest.size(), question + 1));
    if (request.method == "PUT" || request.method == "POST" || request.method == "DELETE") {
      return write(request, path, query);
    }
    if (query.ends_with("uploads=")) return upload_page(path, query);
    if (question < rest.size()) return page(path, query);
    const auto found = objects_.find(path);
    if (found == objects_.end()) return ScriptedReply::error("404 Not Found", "NoSuchKey");
    const auto& [bytes, etag, write_id] = found->second;
    const std::string match = header_of(request, "if-match");
    if (!match.empty() && match != "\"" + etag + "\"") {
      return ScriptedReply::error("412 Precondition Failed", "PreconditionFailed");
    }
    ScriptedReply reply{.body = request.method == "HEAD" ? "" : bytes};
    reply.set("ETag", "\"" + etag + "\"");
    reply.set("Content-Length", std::to_string(bytes.size()));
    if (!write_id.empty() && keeps_metadata) reply.set("x-amz-meta-s3io-write-id", write_id);
    const std::string range = header_of(request, "range");
    if (!range.empty()) cut(range, reply);
    return reply;
  }

  static std::string value_of(const std::string& query, const std::string& name) {
    const size_t at = query.find(name + "=");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 1;
    return percent_decoded(query.substr(begin, query.find('&', begin) - begin));
  }

  ScriptedReply write(const HttpRequest& request, const std::string& path,
                      const std::string& query) {
    const std::string payload(reinterpret_cast<const char*>(request.payload.data()),
                              request.payload.size());
    const std::string id = value_of(query, "uploadId");
    const std::string sum = header_of(request, "x-amz-checksum-crc32c");
    if (!sum.empty() && sum != crc32c_in_base64(crc32c(0, request.payload))) {
      return ScriptedReply::error("400 Bad Request", "BadDigest");
    }
    if (query == "uploads=") {
      const std::string made = "upload/" + std::to_string(++versions_) + "+";
      uploads_[made] = {path, header_of(request, "x-amz-meta-s3io-write-id")};
      return {.body = "<InitiateMultipartUploadResult><UploadId>" + made +
                      "</UploadId></InitiateMultipartUploadResult>"};
    }
    if (!id.empty()) return write_to_upload(request, id, query, payload);
    if (request.method == "DELETE") {
      objects_.erase(path);
      return {.status = "204 No Content"};
    }
    return make(request, path, payload, header_of(request, "x-amz-meta-s3io-write-id"));
  }

  ScriptedReply write_to_upload(const HttpRequest& request, const std::string& id,
                                const std::string& query, const std::string& payload) {
    const auto found = uploads_.find(id);
    if (found == uploads_.end()) return ScriptedReply::error("404 Not Found", "NoSuchUpload");
    if (request.method == "DELETE") {
      uploads_.erase(found);
      return {.status = "204 No Content"};
    }
    auto& [path, write_id, parts] = found->second;
    if (request.method == "PUT") {
      parts[std::stoi(value_of(query, "partNumber"))] = payload;
      ScriptedReply reply;
      reply.set("ETag", "\"part-" + std::to_string(payload.size()) + "\"");
      return reply;
    }
    std::string whole;
    size_t at = 0;  // in the list, which has them in their order
    part_sizes_.clear();
    for (const auto& [number, bytes] : parts) {
      const std::string listed = "<PartNumber>" + std::to_string(number) +
                                 "</PartNumber><ETag>&quot;part-" + std::to_string(bytes.size());
      at = payload.find(listed, at);
      if (at == std::string::npos) {
        return ScriptedReply::error("400 Bad Request", "InvalidPart");
      }
      whole += bytes;
      part_sizes_.push_back(bytes.size());
    }
    ScriptedReply reply = make(request, path, whole, write_id);
    if (!reply.status.starts_with("200")) return reply;
    reply.body = "<CompleteMultipartUploadResult><ETag>&quot;" + objects_[path].etag +
                 "&quot;</ETag></CompleteMultipartUploadResult>";
    uploads_.erase(found);
    return reply;
  }

  ScriptedReply make(const HttpRequest& request, const std::string& path, const std::string& bytes,
                     const std::string& write_id) {
    if (header_of(request, "if-none-match") == "*" && heeds_conditions && objects_.contains(path)) {
      return ScriptedReply::error("412 Precondition Failed", "PreconditionFailed");
    }
    objects_[path] = {bytes, "version-" + std::to_string(++versions_), write_id};
    ScriptedReply reply;
    reply.set("ETag", "\"" + objects_[path].etag + "\"");
    const std::string sum = header_of(request, "x-amz-checksum-crc32c");
    if (!sum.empty()) reply.set("x-amz-checksum-crc32c", sum);
    return reply;
  }

  static void cut(const std::string& range, ScriptedReply& reply) {
    const size_t size = reply.body.size();
    const auto first = number_at(range, range.find('=') + 1);
    const auto last = std::min<size_t>(number_at(range, range.find('-') + 1), size - 1);
    if (first >= size) {
      reply = ScriptedReply::error("416 Range Not Satisfiable", "InvalidRange");
      return;
    }
    reply.status = "206 Partial Content";
    reply.body = reply.body.substr(first, last - first + 1);
    reply.set("Content-Length", std::to_string(reply.body.size()));
    reply.set("Content-Range", "bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" +
                                   std::to_string(size));
  }

  static size_t number_at(const std::string& text, size_t at) {
    size_t number = 0;
    std::from_chars(text.data() + at, text.data() + text.size(), number);
    return number;
  }

  // Its token is the last key of the page before.
  ScriptedReply page(const std::string& bucket, const std::string& query) {
    const std::string prefix = bucket + "/" + value_of(query, "prefix");
    const std::string after = value_of(query, "continuation-token");
    std::string xml, last;
    size_t count = 0;
    bool is_truncated = false;
    for (const auto& [path, version] : objects_) {
      if (!path.starts_with(prefix) || path <= after) continue;
      is_truncated = count == page_size;
      if (is_truncated) break;
      last = path;
      ++count;
      xml += "<Contents><Key>" + path.substr(bucket.size() + 1) + "</Key><ETag>&quot;" +
             version.etag + "&quot;</ETag><Size>" + std::to_string(version.bytes.size()) +
             "</Size></Contents>";
    }
    return {.body = "<ListBucketResult><IsTruncated>" +
                    std::string(is_truncated ? "true" : "false") + "</IsTruncated>" +
                    (is_truncated ? "<NextContinuationToken>" + last + "</NextContinuationToken>"
                                  : "") +
                    xml + "</ListBucketResult>"};
  }

  // They were begun an hour ago. Markers are the key and the id of the last one.
  ScriptedReply upload_page(const std::string& bucket, const std::string& query) {
    const std::string prefix = bucket + "/" + value_of(query, "prefix");
    std::vector<std::pair<std::string, std::string>> found;
    for (const auto& [id, upload] : uploads_) {
      const std::pair one{upload.path.substr(bucket.size() + 1), id};
      const std::pair after{value_of(query, "key-marker"), value_of(query, "upload-id-marker")};
      if (upload.path.starts_with(prefix) && one > after) found.push_back(one);
    }
    std::ranges::sort(found);
    const bool is_truncated = found.size() > page_size;
    if (is_truncated) found.resize(page_size);
    std::string xml;
    for (const auto& [key, id] : found) {
      xml += "<Upload><Key>" + key + "</Key><UploadId>" + id +
             "</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>";
    }
    const std::string next = is_truncated ? "<NextKeyMarker>" + found.back().first +
                                                "</NextKeyMarker><NextUploadIdMarker>" +
                                                found.back().second + "</NextUploadIdMarker>"
                                          : "";
    ScriptedReply reply{.body = "<ListMultipartUploadsResult><IsTruncated>" +
                                std::string(is_truncated ? "true" : "false") + "</IsTruncated>" +
                                next + xml + "</ListMultipartUploadsResult>"};
    reply.set("Date", "Thu, 01 Jan 2026 01:00:00 GMT");
    return reply;
  }

  std::atomic<int> requests_{0};
  std::mutex mutex_;  // guards what follows
  std::map<std::string, Version> objects_;
  std::map<std::string, Upload> uploads_;  // by their ids
  std::vector<size_t> part_sizes_;
  int versions_ = 0;
  std::vector<HttpRequest*> lost_;
};

inline const Credentials kCanary{"AKIACANARYACCESSKEY", "canary/secret+key", "canary//session=="};

// Without waits between attempts.
inline S3Config scripted_config() {
  return {
      .endpoint = "http://localhost:9000", .first_backoff = milliseconds(0), .retries_per_s = 1e9};
}

}  // namespace s3io::testing
