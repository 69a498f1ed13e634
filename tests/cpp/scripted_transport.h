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

#include "http/s3_client.h"
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
  size_t page_size = 1000;

  void put(const std::string& path, const Bytes& bytes) {
    const std::lock_guard lock(mutex_);
    objects_[path] = {std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                      "version-" + std::to_string(++versions_)};
  }
  void remove(const std::string& path) {
    const std::lock_guard lock(mutex_);
    objects_.erase(path);
  }
  int requests() const { return requests_; }

  void submit(HttpRequest& request) override {
    request.clear_reply();
    const int number = requests_++;
    ScriptedReply reply = answer(request);
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
    if (question < rest.size()) return page(path, rest.substr(question + 1));
    const auto found = objects_.find(path);
    if (found == objects_.end()) return ScriptedReply::error("404 Not Found", "NoSuchKey");
    const auto& [bytes, etag] = found->second;
    const std::string match = header_of(request, "if-match");
    if (!match.empty() && match != "\"" + etag + "\"") {
      return ScriptedReply::error("412 Precondition Failed", "PreconditionFailed");
    }
    ScriptedReply reply{.body = request.method == "HEAD" ? "" : bytes};
    reply.set("ETag", "\"" + etag + "\"");
    reply.set("Content-Length", std::to_string(bytes.size()));
    const std::string range = header_of(request, "range");
    if (!range.empty()) cut(range, reply);
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
    const auto value = [&](const std::string& name) {
      const size_t at = query.find(name + "=");
      if (at == std::string::npos) return std::string();
      const size_t begin = at + name.size() + 1;
      return percent_decoded(query.substr(begin, query.find('&', begin) - begin));
    };
    const std::string prefix = bucket + "/" + value("prefix");
    const std::string after = value("continuation-token");
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

  std::atomic<int> requests_{0};
  std::mutex mutex_;  // guards what follows
  std::map<std::string, Version> objects_;
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
