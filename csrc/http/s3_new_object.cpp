#include "http/s3_new_object.h"

#include <array>
#include <random>
#include <utility>

#include "base/crc32c.h"

namespace s3io {
namespace {

std::string new_write_id() {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::random_device random;
  std::string id;
  for (int word = 0; word < 4; ++word) {
    for (uint32_t bits = random(), digit = 0; digit < 8; ++digit, bits >>= 4) {
      id += kDigits[bits & 0xf];
    }
  }
  return id;
}

S3Path object_of(const std::string& path) {
  S3Path name = parse_s3_path(path);
  if (name.key.empty()) {
    throw Error(ErrorKind::config, message(path, ": names a bucket, and no object in it"));
  }
  return name;
}

ErrorKind kind_of_write(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::read:
    case ErrorKind::object_changed:
      return ErrorKind::write;
    case ErrorKind::read_timeout:
      return ErrorKind::write_timeout;
    default:
      return kind;
  }
}

}  // namespace

std::string crc32c_in_base64(uint32_t crc32c) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  const uint64_t bits = uint64_t{crc32c} << 4;  // 36 of them
  for (int shift = 30; shift >= 0; shift -= 6) text += kDigits[bits >> shift & 0x3f];
  return text + "==";
}

S3NewObject::S3NewObject(std::shared_ptr<S3Client> client, std::string path, S3WriteOptions options)
    : client_(std::move(client)),
      path_(std::move(path)),
      name_(object_of(path_)),
      options_(std::move(options)),
      id_(new_write_id()) {}

S3Call S3NewObject::request(std::string_view method, bool creates) const {
  S3Call call;
  call.method = method;
  call.object = name_;
  if (creates) {
    call.headers = options_.headers;
    call.headers.push_back({"x-amz-meta-s3io-write-id", id_});
    call.headers.push_back({"content-type", "application/octet-stream"});
  }
  return call;
}

void S3NewObject::add_condition(S3Call& call) const {
  if (options_.if_absent) call.headers.push_back({"if-none-match", "*"});
}

std::optional<Error> S3NewObject::send(S3Call& call, const WaitCallback& on_wait) const {
  try {
    client_->call(call, on_wait);
    return std::nullopt;
  } catch (const Error& error) {
    if (call.error) return error;
    if (call.attempts > 0) throw;  // of `on_wait`, or of credentials that were to be renewed
    throw Error(error.kind(), error.what(), true);
  }
}

bool S3NewObject::is_in_place(int64_t size_bytes, std::string_view etag,
                              const WaitCallback& on_wait) const {
  S3Call call = request("HEAD");
  const std::optional<Error> error = send(call, on_wait);
  if (error && error->kind() == ErrorKind::not_found) return false;
  if (error) throw Error(*error);
  const ResponseHead& head = call.http.head;
  const bool has_size = head.content_length() == size_bytes;
  if (head.write_id().empty()) {  // another program's, or on a server that keeps no metadata
    if (!etag.empty() || !has_size) return has_size && head.etag() == etag;
    throw Error(ErrorKind::write, "what is there does not say of which write it is");
  }
  if (head.write_id() != id_) return false;
  if (has_size) return true;
  throw Error(ErrorKind::write, message("it has ", head.content_length(), " bytes, not ",
                                        size_bytes, ", and is not what was written"));
}

bool S3NewObject::resolve(Doubt doubt, int64_t size_bytes, Error& error,
                          const WaitCallback& on_wait) const {
  std::string known = "; it is not in place, and what was there before stays";
  bool is_undone = true;
  if (doubt != Doubt::none) {
    try {
      if (is_in_place(size_bytes, {}, on_wait)) return true;
      // A server that heeds the condition refuses what comes late, too.
      is_undone = doubt == Doubt::ended || error.kind() == ErrorKind::exists;
      if (!is_undone) known = "; it is not in place now, but the server may yet put it there";
    } catch (const Error& other) {
      is_undone = false;
      known = message("; whether it is in place is unknown: ", other.what());
    }
  }
  error = Error(error.kind(), message(error.what(), known), is_undone);
  return false;
}

void S3NewObject::check_reply(const S3Call& call, uint32_t crc32c) const {
  const ResponseHead& head = call.http.head;
  if (head.etag().empty()) {
    throw Error(ErrorKind::write,
                message(path_, ": the server does not say what it has written (ETag)"));
  }
  const std::string checksum = crc32c_in_base64(crc32c);
  if (!head.checksum_crc32c().empty() && head.checksum_crc32c() != checksum) {
    throw Error(
        ErrorKind::write,
        message(path_, ": the server has other bytes than it was sent: their CRC-32C is not ",
                checksum));
  }
}

// Who may write, and not read, has the server's word; so has who was followed by another write.
void S3NewObject::check_size(int64_t size_bytes, std::string_view etag,
                             const WaitCallback& on_wait) const {
  S3Call call = request("HEAD");
  const std::optional<Error> error = send(call, on_wait);
  if (error) {
    if (error->kind() == ErrorKind::access || error->kind() == ErrorKind::not_found) return;
    throw Error(of_write(call, *error).kind(),
                message(path_, ": the server says that it has written it, but ", error->what()));
  }
  const ResponseHead& head = call.http.head;
  if (head.etag() != etag || head.content_length() == size_bytes) return;
  throw Error(ErrorKind::write, message(path_, ": the server was sent ", size_bytes,
                                        " bytes, and has ", head.content_length()));
}

Error S3NewObject::of_write(const S3Call& call, const Error& error) const {
  const int status = call.http.head.status();
  if (call.http.outcome != HttpOutcome::replied) {
    return Error(kind_of_write(error.kind()), error.what());
  }
  if (status == 412 && options_.if_absent) {
    return Error(ErrorKind::exists, message(path_, ": there is an object of this name already"));
  }
  if (status == 409) {
    return Error(ErrorKind::write,
                 message(error.what(), "; another write of this object was at work: begin again"));
  }
  if (status == 507) return Error(ErrorKind::no_space, error.what());
  const bool is_understood = error.kind() == ErrorKind::access;
  if (options_.checksums && !is_understood && (status == 400 || status == 501)) {
    return Error(kind_of_write(error.kind()),
                 message(error.what(),
                         "; where the server takes no checksums of what it gets "
                         "(x-amz-checksum-crc32c): upload_checksums=False"));
  }
  return Error(kind_of_write(error.kind()), error.what());
}

void S3NewObject::check_absent(const WaitCallback& on_wait) const {
  if (!options_.if_absent) return;
  S3Call call = request("HEAD");
  const std::optional<Error> error = send(call, on_wait);
  if (!error) {
    throw Error(ErrorKind::exists, message(path_, ": there is an object of this name already"),
                true);
  }
  if (error->kind() != ErrorKind::not_found) throw Error(error->kind(), error->what(), true);
}

WrittenObject S3NewObject::put(std::span<const std::byte> data, const WaitCallback& on_wait) const {
  WrittenObject written{.size_bytes = std::ssize(data), .crc32c = crc32c(0, data)};
  S3Call call = request("PUT", true);
  if (options_.checksums) {
    call.headers.push_back({"x-amz-checksum-crc32c", crc32c_in_base64(*written.crc32c)});
  }
  add_condition(call);
  call.http.payload = data;
  std::optional<Error> error = send(call, on_wait);
  if (!error) {
    const ResponseHead& head = call.http.head;
    check_reply(call, *written.crc32c);
    if (head.checksum_crc32c().empty()) check_size(written.size_bytes, head.etag(), on_wait);
    return written;
  }
  error = of_write(call, *error);
  if (!resolve(call.doubt, written.size_bytes, *error, on_wait)) throw Error(*error);
  return written;
}

void remove_object(S3Client& client, const std::string& path, const WaitCallback& on_wait) {
  S3Call call;
  call.method = "DELETE";
  call.object = object_of(path);
  try {
    client.call(call, on_wait);
  } catch (const Error& error) {
    if (call.error && call.http.outcome == HttpOutcome::replied && call.http.head.status() == 404) {
      if (parse_s3_error(call.http.text).code != "NoSuchBucket") return;
    }
    throw Error(call.error ? kind_of_write(error.kind()) : error.kind(), error.what());
  }
}

}  // namespace s3io
