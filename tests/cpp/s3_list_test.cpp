// Lists of objects, whatever the server says: all of them, or an error that names the prefix.
#include <doctest/doctest.h>

#include "http/etag.h"
#include "http/s3_objects.h"
#include "scripted_transport.h"

namespace s3io::testing::s3_list_test {

struct Scene {
  Scene() {
    for (size_t shard = 0; shard < 4; ++shard) {
      paths.push_back("s3://bucket/train/shard " + std::to_string(shard) + ".bin");
      s3->put(paths.back(), Bytes(shard));
    }
  }
  const std::shared_ptr<ScriptedS3> s3 = std::make_shared<ScriptedS3>();
  const std::shared_ptr<S3Objects> store = std::make_shared<S3Objects>(
      S3Objects::Options{.s3 = scripted_config()}, fixed_credentials(kCanary), s3);
  std::vector<std::string> paths;
};

TEST_CASE("a list has all pages, of any size, and asks for nothing else") {
  const Scene scene;
  for (const size_t page_size : {1, 3, 1000}) {
    scene.s3->page_size = page_size;
    const int before = scene.s3->requests();
    CHECK(scene.store->list("s3://bucket/train/") == scene.paths);
    CHECK(scene.s3->requests() - before == (page_size == 1 ? 4 : page_size == 3 ? 2 : 1));
  }
  scene.s3->script = [&, next = scene.s3->requests()](int number, const HttpRequest&,
                                                      ScriptedReply& reply) {
    if (number == next) reply.body.resize(reply.body.size() / 2);  // and nobody says so
  };
  CHECK(scene.store->list("s3://bucket/train/") == scene.paths);
  scene.s3->script = {};
  CHECK(scene.store->list("s3://bucket/none").empty());
  CHECK(scene.store->list("s3://bucket").size() == 4);
  const auto objects = scene.store->list_objects("s3://bucket/train/");
  for (size_t shard = 0; shard < 4; ++shard) {
    const ObjectVersion version = scene.store->stat(scene.paths[shard]).version;
    CHECK(objects[shard].size_bytes == version.size_bytes);
    CHECK(etag_number(objects[shard].etag) == version.modified_ns);
  }
}

TEST_CASE("a list that does not end, or that names an object twice, is refused") {
  const Scene scene;
  const std::string one = "<Contents><Key>train/a</Key><Size>1</Size><ETag>e</ETag></Contents>";
  const auto page = [](const std::string& contents, bool goes_on) {
    return "<ListBucketResult><IsTruncated>" + std::string(goes_on ? "true" : "false") +
           "</IsTruncated>" + (goes_on ? "<NextContinuationToken>t</NextContinuationToken>" : "") +
           contents + "</ListBucketResult>";
  };
  for (const std::string& body :
       {page(one, true), page(one + one, false), page("", true), std::string("no")}) {
    scene.s3->script = [&](int, const HttpRequest&, ScriptedReply& reply) {
      reply = {.body = body};
    };
    const Caught error = caught([&] { scene.store->list("s3://bucket/train/"); });
    CHECK(error.kind == ErrorKind::data);
    CHECK(error.says("s3://bucket/train/: "));
  }
  scene.s3->script = [&](int, const HttpRequest&, ScriptedReply& reply) {
    reply = {.body = std::string(17 << 20, ' ')};
  };
  CHECK(caught([&] { scene.store->list("s3://bucket/train/"); }).says("longer than"));
  // Tokens that go round, of pages without keys, and of pages with the same ones.
  for (const bool is_empty : {true, false}) {
    const int before = scene.s3->requests();
    scene.s3->script = [&](int number, const HttpRequest&, ScriptedReply& reply) {
      const std::string name = std::to_string(number % 2);
      std::string body = page(is_empty ? "" : one, true);
      body.replace(body.find(">t<") + 1, 1, "t" + name);
      if (!is_empty) body.replace(body.find("train/a") + 6, 1, name);
      reply = {.body = body};
    };
    const Caught error = caught([&] { scene.store->list("s3://bucket/train/"); });
    CHECK(error.says(is_empty ? "does not end" : "twice"));
    CHECK(scene.s3->requests() - before == (is_empty ? 1001 : 4));
  }
}

}  // namespace s3io::testing::s3_list_test
