// Uploads in parts that nobody has finished: found, and aborted.
//
// A writer aborts its own. What it cannot (it was killed, or the server's reply was lost) stays on
// the server, where its parts cost money.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "http/s3_client.h"

namespace s3io {

struct OpenUpload {
  std::string path;  // of the object that it would become
  std::string id;
  std::optional<int64_t> age_s;  // by the server's clock; none: it does not say what time it is
};

// Those of objects whose path begins with `prefix`, sorted by path and id; a request for each
// thousand. Throws Error(data) where what comes is no list, has something that nobody asked for, or
// does not end.
std::vector<OpenUpload> list_uploads(S3Client& client, const std::string& prefix,
                                     const WaitCallback& on_wait = {});

// The server has none of its parts then. Nothing happens where there is no such upload. Throws
// Error(config) where the key or the id is empty: that is a request for something else.
void abort_upload(S3Client& client, const S3Path& object, const std::string& id,
                  const WaitCallback& on_wait);

// "`python -m torch_s3io uploads 's3://bucket/key'` lists it, ...": what to do about one of `path`.
std::string how_to_find_upload(const std::string& path);

// "uploadId=..." of a request's query.
std::string query_of_upload(const std::string& id);

}  // namespace s3io
