// Objects of S3 that are written, with proof that they were.
//
// Every write has an id of its own, which the object keeps as metadata. Where no reply says whether
// it is in place (the connection broke after it was sent, the server failed), a HEAD does: it is,
// if the object there has this id and this size.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "http/s3_client.h"
#include "store/byte_writer.h"

namespace s3io {

struct S3WriteOptions {
  bool if_absent = false;                // Error(exists) where there is an object of this name
  bool checksums = true;                 // CRC-32C with each payload: the server compares
  std::vector<HttpHeader> headers = {};  // of the object besides, in lower case: its encryption
};

// "AAAAAA==": as S3 has it in headers.
std::string crc32c_in_base64(uint32_t crc32c);

// One object to be, of one write. One thread at a time.
class S3NewObject {
 public:
  // Throws Error(config) where `path` names no object.
  S3NewObject(std::shared_ptr<S3Client> client, std::string path, S3WriteOptions options);

  const std::string& path() const { return path_; }
  const S3Path& name() const { return name_; }
  const S3WriteOptions& options() const { return options_; }
  S3Client& client() const { return *client_; }

  // A request for this object, with the headers of what it will be where `creates`.
  S3Call request(std::string_view method, bool creates = false) const;
  // "if-none-match" where it is asked for.
  void add_condition(S3Call& call) const;

  // Where it must not be there: before anything is sent, as not every server knows the condition.
  // Throws an Error that is_undone.
  void check_absent(const WaitCallback& on_wait) const;
  // By one request, which is repeated where that may help. Throws Error(exists | write | access |
  // not_found | write_timeout | no_space | ...) with a text that says whether it may be in place
  // all the same, as is_undone does; and what `on_wait` throws.
  WrittenObject put(std::span<const std::byte> data, const WaitCallback& on_wait) const;

  // Sends it. What went wrong; none: the server answers that it is well. Throws what `on_wait`
  // does, and an Error that is_undone where nothing was sent.
  std::optional<Error> send(S3Call& call, const WaitCallback& on_wait) const;
  // Whether the object there is that of this write: by the id that it keeps, or, on a server that
  // keeps none, by the ETag of a reply to this write. Throws Error where that cannot be found out.
  bool is_in_place(int64_t size_bytes, std::string_view etag, const WaitCallback& on_wait) const;
  // Looks where that is in doubt: true, if it is in place. Else the error says what is known: by
  // its text, and by is_undone.
  bool resolve(Doubt doubt, int64_t size_bytes, Error& error, const WaitCallback& on_wait) const;
  // Throws Error(write) where a reply of success does not say what the server has, or says that it
  // has other bytes.
  void check_reply(const S3Call& call, uint32_t crc32c) const;
  // The same by a HEAD, where the reply had no checksum: of the version of this ETag.
  void check_size(int64_t size_bytes, std::string_view etag, const WaitCallback& on_wait) const;
  // As an error of a write.
  Error of_write(const S3Call& call, const Error& error) const;

 private:
  const std::shared_ptr<S3Client> client_;
  const std::string path_;
  const S3Path name_;
  const S3WriteOptions options_;
  const std::string id_;
};

// Nothing happens where there is none.
void remove_object(S3Client& client, const std::string& path, const WaitCallback& on_wait);

}  // namespace s3io
