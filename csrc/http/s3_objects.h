// Objects of S3, and of what speaks its protocol, as the objects of a store. Paths are
// s3://bucket/key.
//
// A version is the object's ETag, as numbers (http/etag.h), and its size. Every reply is
// compared with it before a byte is stored; so what a batch holds is of one version, and nothing
// has to be looked at again when it is delivered.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/known_etags.h"
#include "http/s3_client.h"
#include "http/s3_xml.h"
#include "store/store.h"

namespace s3io {

class S3Object;

class S3Objects final : public Store {
 public:
  struct Options {
    S3Config s3;
    // Longer ranges are read in several parts. Chunks of ReaderOptions are for devices.
    int64_t part_bytes = int64_t{8} << 20;
  };

  // Throws Error(config). It belongs to this process, as the transport does.
  S3Objects(Options options, std::shared_ptr<CredentialSource> credentials,
            std::shared_ptr<Transport> transport);

  ObjectInfo stat(const std::string& path) override;
  // The object as it is now, by a HEAD.
  std::shared_ptr<S3Object> open(const std::string& path, const WaitCallback& on_wait);
  // The same for who reads all of it: with its checksum, if the server has one of the whole object.
  std::shared_ptr<S3Object> open_whole(const std::string& path, const WaitCallback& on_wait);
  std::vector<std::string> list(const std::string& prefix) override;
  // The same with sizes and ETags: a request for each thousand. With `most` above 0 those of the
  // first page that has any, at most so many, and at most a thousand.
  std::vector<ListedObject> list_objects(const std::string& prefix,
                                         const WaitCallback& on_wait = {}, int64_t most = 0);
  // Asks the server once, at an object of two bytes and more, for a version that there never was.
  // False where it sends this one all the same: then the ETags of replies are the only guard.
  // Throws Error(read) where it serves no ranges.
  bool honours_if_match(const std::string& path, const ObjectVersion& version,
                        const WaitCallback& on_wait = {});
  std::shared_ptr<Object> open(const std::string& path) override;
  // Of versions that may be opened: where their numbers do not tell it (http/etag.h), it is kept.
  void know_etag(std::string_view etag) { known_etags_.add(etag); }
  // Asks nobody: another version is the error of the first read of it. Of one whose ETag nobody has
  // said the first request goes without If-Match.
  std::shared_ptr<Object> open(const std::string& path, const ObjectVersion& version) override;
  // They are names: no more is open than anybody holds.
  int64_t max_open_objects() const override { return int64_t{1} << 20; }
  std::unique_ptr<RangeReader> make_reader(const ReaderOptions& options,
                                           ReadCounters& counters) override;

  const std::shared_ptr<S3Client>& client() const { return client_; }
  int64_t part_bytes() const { return part_bytes_; }

 private:
  // A HEAD that says which version is there.
  void look_up(S3Call& call, const std::string& path, const WaitCallback& on_wait);

  // One page of a list. Throws Error(data) where what comes is none.
  ListPage read_page(S3Call& call, const std::string& key_prefix, const WaitCallback& on_wait);

  const int64_t part_bytes_;
  const std::shared_ptr<S3Client> client_;
  KnownEtags known_etags_;
};

}  // namespace s3io
