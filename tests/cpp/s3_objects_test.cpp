// Objects of S3 through everything that reads a store, whatever the server does: the right bytes,
// or an error that says of which object.
#include "http/s3_objects.h"

#include <doctest/doctest.h>

#include "base/crc32c.h"
#include "data_set.h"
#include "leak_check.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "scripted_transport.h"
#include "store/file_checksum.h"
#include "store/range_engine.h"

namespace s3io::testing::s3_objects_test {

using Script = ScriptedS3::Script;

struct Scene {
  explicit Scene(int64_t part_bytes = 700) : Scene(part_bytes, bytes_layout(100)) {}
  Scene(int64_t part_bytes, RecordLayout layout)
      : data(std::move(layout), 30, {20, 0, 13, 7}, 19),
        store(std::make_shared<S3Objects>(
            S3Objects::Options{.s3 = scripted_config(), .part_bytes = part_bytes},
            fixed_credentials(kCanary), s3)) {
    for (size_t shard = 0; shard < 4; ++shard) {
      paths.push_back("s3://bucket/train/shard " + std::to_string(shard) + ".bin");
      s3->put(paths.back(), data.contents(shard));
    }
  }

  std::shared_ptr<RecordSource> source() const {
    return data.source_in(store, paths, 1, {.read_timeout_s = 0.2});
  }

  // Reads an epoch, and checks every batch of it.
  void read(const std::shared_ptr<RecordSource>& source,
            const std::shared_ptr<BufferPool>& pool) const {
    const EpochPlan plan(shuffled_order(40, 3), 0, {.batch_size = 6});
    BatchReader reader(source, plan, pool);
    Batch batch;
    std::vector<int64_t> records;
    int64_t number = 0;
    for (; reader.next(batch); ++number) {
      plan.records(number, records);
      REQUIRE(data.holds(batch, records));
    }
    CHECK(number == plan.num_groups());
    CHECK(reader.engine_name() == "s3");
  }

  // The whole of an object, or its error.
  std::optional<Error> read_object(size_t shard, Bytes& bytes) const {
    ReadCounters counters;
    const auto reader = store->make_reader({.depth = 3}, counters);
    const auto object = store->open(paths[shard], versions[shard]);
    bytes.assign(data.contents(shard).size() + 32, std::byte{0x5a});
    RangeRead read{.object = object.get(), .length = object->size(), .data = bytes.data() + 16};
    reader->push(read);
    std::vector<RangeRead*> finished;
    while (finished.empty()) reader->run(finished, kWaitSlice);
    CHECK(reader->idle());
    // Nothing is written beside it.
    for (size_t at = 0; at < 16; ++at) {
      CHECK(bytes[at] == std::byte{0x5a});
      CHECK(bytes[bytes.size() - 1 - at] == std::byte{0x5a});
    }
    bytes = Bytes(bytes.begin() + 16, bytes.end() - 16);
    return read.error;
  }
  void look_at_versions() {
    for (const std::string& path : paths) versions.push_back(store->stat(path).version);
  }

  const DataSet data;
  const std::shared_ptr<ScriptedS3> s3 = std::make_shared<ScriptedS3>();
  const std::shared_ptr<S3Objects> store;
  std::vector<std::string> paths;
  std::vector<ObjectVersion> versions;
};

TEST_CASE("batches, fetches, ranges and checksums come from S3") {
  const LeakCheck leaks;
  std::mt19937_64 random(19);
  for (int round = 0; round < rounds(15); ++round) {
    CAPTURE(round);
    const Scene scene(static_cast<int64_t>(1 + random() % 3000), random_layout(random));
    const auto source = scene.source();
    const auto pool = round % 3 == 0 ? nullptr : make_pool(*source, 6, 3);
    scene.read(source, pool);
    BatchFetcher fetcher(source, pool);
    Batch batch;
    fetcher.fetch({39, 0, 20, 0}, batch);
    CHECK(scene.data.holds(batch, {39, 0, 20, 0}));
  }
  const Scene scene;
  const Bytes& bytes = scene.data.contents(0);
  RangeEngine engine(*scene.store, {.config = {.min_split_size = 1}, .alignment = 1});
  const auto object = scene.store->open(scene.paths[0]);
  AlignedBuf buffer = AlignedBuf::allocate(1000, 64);
  engine.read(*object, {100, 1000}, buffer.data(), buffer, {});
  CHECK(std::equal(buffer.data(), buffer.data() + 1000, bytes.begin() + 100));
  const FileChecksum sum =
      checksum_of_object(*scene.store, scene.store->open(scene.paths[0]), 10, {});
  CHECK(sum.crc32c == crc32c(0, bytes));
  CHECK(sum.size_bytes == std::ssize(bytes));
}

TEST_CASE("looking up an object that is not there, or that the server says too little of") {
  const Scene scene;
  CHECK(caught([&] { scene.store->stat("s3://bucket/none"); }).kind == ErrorKind::not_found);
  CHECK(caught([&] { scene.store->open("/a/file"); }).kind == ErrorKind::config);
  for (const char* name : {"ETag", "Content-Length"}) {
    scene.s3->script = [&](int, const HttpRequest&, ScriptedReply& reply) { reply.remove(name); };
    const Caught error = caught([&] { scene.store->stat(scene.paths[0]); });
    CHECK(error.kind == ErrorKind::read);
    CHECK(error.says(scene.paths[0]));
  }
}

// What servers and what lies between them and us have been seen to do (docs/design.md).
struct Fault {
  ErrorKind kind;  // where every reply has it
  bool may_pass;   // where not every reply has it
  Script script;
};

std::map<std::string, Fault> faults() {
  const auto set = [](const std::string& name, const std::string& value) -> Script {
    return [=](int, const HttpRequest&, ScriptedReply& reply) { reply.set(name, value); };
  };
  const auto replace = [](const ScriptedReply& other) -> Script {
    return [=](int, const HttpRequest&, ScriptedReply& reply) { reply = other; };
  };
  const auto error = [&](const std::string& status, const std::string& code) {
    return replace(ScriptedReply::error(status, code));
  };
  using Reply = ScriptedReply&;
  using Request = const HttpRequest&;
  using enum ErrorKind;
  return {
      {"whole object",
       {read, true,
        [](int, Request, Reply r) {
          r.status = "200 OK";
          r.remove("Content-Range");
        }}},
      {"cut", {read, true, [](int, Request, Reply r) { r.body.pop_back(); }}},
      {"cut, no length",
       {read, true,
        [](int, Request, Reply r) {
          r.body.pop_back();
          r.remove("Content-Length");
        }}},
      {"reset",
       {read, true,
        [](int, Request, Reply r) {
          r.body.resize(r.body.size() / 2);
          r.outcome = HttpOutcome::broken;
        }}},
      {"surplus", {read, true, [](int, Request, Reply r) { r.body += "x"; }}},
      {"error in 200", {read, true, replace({.body = "<Error><Code>Internal</Code></Error>"})}},
      {"error in 206", {read, true, [](int, Request, Reply r) { r.body = "<Error/>"; }}},
      {"another place", {read, true, set("Content-Range", "bytes 1-2/2030")}},
      {"another size", {object_changed, false, set("Content-Range", "bytes 0-0/1")}},
      {"gzip", {read, true, set("Content-Encoding", "gzip")}},
      {"chunked", {read, true, set("Transfer-Encoding", "chunked")}},
      {"two lengths",
       {read, true, [](int, Request, Reply r) { r.headers.emplace_back("content-length", "1"); }}},
      {"weak ETag", {read, true, set("ETag", "W/\"version-1\"")}},
      {"another ETag", {object_changed, false, set("ETag", "\"version-x\"")}},
      {"no ETag", {read, true, [](int, Request, Reply r) { r.remove("ETag"); }}},
      {"huge head", {read, true, set("X-Fill", std::string(70'000, 'x'))}},
      {"redirect", {config, false, error("307 Temporary Redirect", "TemporaryRedirect")}},
      {"gone", {object_changed, false, error("404 Not Found", "NoSuchKey")}},
      {"shrunk", {object_changed, false, error("416 Range Not Satisfiable", "InvalidRange")}},
      {"changed", {object_changed, false, error("412 Precondition Failed", "PreconditionFailed")}},
      {"denied", {access, false, error("403 Forbidden", "AccessDenied")}},
      {"slow down", {read, true, error("503 Slow Down", "SlowDown")}},
      {"internal", {read, true, error("500 Internal Server Error", "InternalError")}},
      {"HTML",
       {read, true, replace({.status = "502 Bad Gateway", .body = std::string(10'000, '<')})}},
      {"unreached", {read, true, replace({.outcome = HttpOutcome::unreached})}},
      {"late", {read_timeout, true, replace({.outcome = HttpOutcome::late})}},
  };
}

TEST_CASE("every fault, at every Nth reply: the right bytes, or an error that names the object") {
  const LeakCheck leaks;
  Scene scene;
  scene.look_at_versions();
  for (const auto& fault : faults()) {
    CAPTURE(fault.first);
    for (const int every : {1, 2, 3}) {
      CAPTURE(every);
      std::atomic<int> count{0};
      scene.s3->script = [&](int number, const HttpRequest& request, ScriptedReply& reply) {
        if (++count % every == 0) fault.second.script(number, request, reply);
      };
      Bytes bytes;
      const std::optional<Error> error = scene.read_object(0, bytes);
      CHECK(error.has_value() == (every == 1 || !fault.second.may_pass));
      if (!error) {
        CHECK(bytes == scene.data.contents(0));
      } else {
        const std::string text = error->what();
        CHECK(error->kind() == fault.second.kind);
        CHECK(text.starts_with(scene.paths[0] + ", bytes "));
        CHECK(text.find("canary") == std::string::npos);
        CHECK((text.find("attempt") != std::string::npos) == fault.second.may_pass);
      }
    }
  }
}

TEST_CASE("an object that is written anew between any two of its parts is never a mixture") {
  const LeakCheck leaks;
  for (int at = 0; at < 3; ++at) {
    CAPTURE(at);
    Scene scene;
    scene.look_at_versions();
    const int before = scene.s3->requests();
    scene.s3->script = [&](int number, const HttpRequest&, ScriptedReply& reply) {
      if (number - before != at) return;
      scene.s3->put(scene.paths[0], Bytes(scene.data.contents(0).size(), std::byte{1}));
      reply = ScriptedReply::error("503 Slow Down", "SlowDown");
    };
    Bytes bytes;
    const std::optional<Error> error = scene.read_object(0, bytes);
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::object_changed);
  }
}

TEST_CASE("a batch fails where a part of it fails for good, and its buffer comes back") {
  const LeakCheck leaks;
  const Scene scene;
  const auto source = scene.source();
  const auto pool = make_pool(*source, 6, 3);
  scene.s3->script = [](int, const HttpRequest& request, ScriptedReply& reply) {
    if (request.url.ends_with("2.bin"))
      reply = ScriptedReply::error("403 Forbidden", "AccessDenied");
  };
  const Caught error = caught([&] { scene.read(source, pool); });
  CHECK(error.kind == ErrorKind::access);
  CHECK(error.says("shard 2.bin"));
  CHECK(is_whole(*pool));
}

TEST_CASE("replies that never come end in a timeout, and cost no buffer") {
  const LeakCheck leaks;
  const Scene scene;
  const auto source = scene.source();
  const auto pool = make_pool(*source, 6, 3);
  scene.s3->script = [](int number, const HttpRequest&, ScriptedReply& reply) {
    reply.is_lost = number > 10;
  };
  CHECK(caught([&] { scene.read(source, pool); }).kind == ErrorKind::read_timeout);
  CHECK(is_whole(*pool));
  CHECK(source->counters().quarantined_buffers == 0);
}

// The ETags that the requests of one object of 2000 bytes ask for.
std::vector<std::string> etags_asked_for(Scene& scene) {
  const auto object = scene.store->open(scene.paths[0], scene.versions[0]);
  ReadCounters counters;
  const auto reader = scene.store->make_reader({.depth = 1}, counters);
  std::vector<std::string> matches;
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply&) {
    matches.push_back(header_of(request, "if-match"));
  };
  Bytes memory(2000);
  RangeRead read{.object = object.get(), .length = 2000, .data = memory.data()};
  reader->push(read);
  std::vector<RangeRead*> finished;
  while (finished.empty()) reader->run(finished, kWaitSlice);
  CHECK_FALSE(read.error);
  CHECK(counters.requests == 3);
  CHECK(counters.direct_bytes == 2000);
  CHECK(counters.unverified_bytes == 2000);
  return matches;
}

TEST_CASE("an ETag that somebody said is asked for, and else the one that was seen") {
  using Etags = std::vector<std::string>;
  const std::string etag = "\"version-1\"";
  Scene scene;
  scene.look_at_versions();
  CHECK(etags_asked_for(scene) == Etags{"", etag, etag});
  for (const char* other : {"version-2", "", "W/\"version-1\"", "version-1\r\n"}) {
    scene.store->know_etag(other);
  }
  CHECK(etags_asked_for(scene) == Etags{"", etag, etag});
  scene.store->know_etag(etag);  // as lists have it: others leave its quotes out
  CHECK(etags_asked_for(scene) == Etags{etag, etag, etag});
  scene.store->know_etag("version-1");
  CHECK(etags_asked_for(scene) == Etags{etag, etag, etag});
}

TEST_CASE("a request that is repeated asks for the ETag that was seen meanwhile") {
  Scene scene;
  scene.look_at_versions();
  const auto object = scene.store->open(scene.paths[0], scene.versions[0]);
  ReadCounters counters;
  const auto reader = scene.store->make_reader({.depth = 2}, counters);
  std::vector<std::string> matches;
  const int before = scene.s3->requests();
  scene.s3->script = [&](int number, const HttpRequest& request, ScriptedReply& reply) {
    matches.push_back(header_of(request, "if-match"));
    if (number == before) reply = ScriptedReply::error("503 Slow Down", "SlowDown");
  };
  Bytes memory(1000);
  RangeRead read{.object = object.get(), .length = 1000, .data = memory.data()};
  reader->push(read);
  std::vector<RangeRead*> finished;
  while (finished.empty()) reader->run(finished, kWaitSlice);
  CHECK_FALSE(read.error);
  CHECK(matches == std::vector<std::string>{"", "", "\"version-1\""});
}

TEST_CASE(
    "of a range that has failed no part is begun or tried again, and its first error is told") {
  Scene scene;  // an object of three parts
  scene.look_at_versions();
  const auto object = scene.store->open(scene.paths[0], scene.versions[0]);
  const int before = scene.s3->requests();
  const ScriptedReply denied = ScriptedReply::error("403 Forbidden", "AccessDenied");
  const ScriptedReply gone = ScriptedReply::error("404 Not Found", "NoSuchKey");
  const ScriptedReply busy = ScriptedReply::error("503 Slow Down", "SlowDown");
  struct Case {
    ScriptedReply first, second;
    bool ends = true;
  };
  for (const Case& one :
       {Case{busy, denied}, Case{denied, gone}, Case{{.is_lost = true}, denied, false}}) {
    ReadCounters counters;
    const auto reader = scene.store->make_reader({.depth = 2}, counters);
    const int begun = scene.s3->requests();
    scene.s3->script = [&](int number, const HttpRequest&, ScriptedReply& reply) {
      if (number < begun + 2) reply = number == begun ? one.first : one.second;
    };
    Bytes memory(static_cast<size_t>(object->size()));
    RangeRead read{.object = object.get(), .length = object->size(), .data = memory.data()};
    reader->push(read);
    std::vector<RangeRead*> finished;
    for (int time = 0; time < 3; ++time) reader->run(finished, milliseconds(0));
    CHECK(scene.s3->requests() == begun + 2);
    CHECK(finished.size() == (one.ends ? 1 : 0));
    CHECK_FALSE(reader->has_backlog());
    REQUIRE(read.error);
    CHECK(read.error->kind() == ErrorKind::access);
    CHECK(reader->abandon(milliseconds(0)));
  }
  CHECK(scene.s3->requests() == before + 6);
}

TEST_CASE(
    "a range that fails before all its parts were begun is let go of, and may be read again") {
  Scene scene;
  scene.look_at_versions();
  const auto object = scene.store->open(scene.paths[0], scene.versions[0]);
  ReadCounters counters;
  const auto reader = scene.store->make_reader({.depth = 1}, counters);
  Bytes memory(static_cast<size_t>(object->size()));
  RangeRead read{.object = object.get(), .length = object->size(), .data = memory.data()};
  for (const bool fails : {true, false}) {
    scene.s3->script = [&](int, const HttpRequest&, ScriptedReply& reply) {
      if (fails) reply = ScriptedReply::error("403 Forbidden", "AccessDenied");
    };
    reader->push(read);
    std::vector<RangeRead*> finished;
    while (finished.empty()) reader->run(finished, kWaitSlice);
    CHECK(finished == std::vector<RangeRead*>{&read});
    CHECK(reader->idle());
    CHECK(read.error.has_value() == fails);
  }
  CHECK(memory == scene.data.contents(0));
}

TEST_CASE("what a source of credentials throws leaves no range behind") {
  struct Interrupt {};
  struct Interrupted final : CredentialSource {
    std::shared_ptr<const Credentials> current() override {
      if (is_early) throw Interrupt();
      return std::make_shared<const Credentials>(kCanary);
    }
    std::shared_ptr<const Credentials> renew(const Credentials&) override { throw Interrupt(); }
    bool is_early = false;
  };
  for (const bool is_early : {true, false}) {
    Scene scene;
    scene.look_at_versions();
    scene.s3->script = [](int, const HttpRequest&, ScriptedReply& reply) {
      reply = ScriptedReply::error("403 Forbidden", "ExpiredToken");
    };
    const auto source = std::make_shared<Interrupted>();
    source->is_early = is_early;
    S3Objects store({.s3 = scripted_config(), .part_bytes = 100}, source, scene.s3);
    ReadCounters counters;
    const auto reader = store.make_reader({.depth = 3}, counters);
    const auto object = store.open(scene.paths[0], scene.versions[0]);
    Bytes memory(1000);
    RangeRead read{.object = object.get(), .length = 1000, .data = memory.data()};
    reader->push(read);
    std::vector<RangeRead*> finished;
    CHECK_THROWS_AS(reader->run(finished, kWaitSlice), Interrupt);
    while (!reader->idle()) {
      try {
        reader->run(finished, kWaitSlice);
      } catch (const Interrupt&) {
      }
    }
    CHECK(finished == std::vector<RangeRead*>{&read});
    CHECK(read.error);
    CHECK(reader->abandon(milliseconds(0)));
  }
}

TEST_CASE("a server is asked whether it heeds If-Match, and refused where it serves no ranges") {
  const Scene scene;
  const ObjectVersion version = scene.store->stat(scene.paths[0]).version;
  const auto asks = [&] { return scene.store->honours_if_match(scene.paths[0], version); };
  CHECK(asks());
  const auto answer = [&](const std::string& status) {
    scene.s3->script = [&, status](int, const HttpRequest& request, ScriptedReply& reply) {
      CHECK(header_of(request, "if-match") == "\"of-no-version\"");
      reply = {.status = status, .body = "ab"};
      reply.set("ETag", "\"version-1\"");
      reply.set("Content-Length", "2");
      reply.set("Content-Range", "bytes 0-1/2030");
    };
  };
  answer("206 Partial Content");
  CHECK_FALSE(asks());
  answer("200 OK");
  const int before = scene.s3->requests();
  const Caught error = caught(asks);
  CHECK(scene.s3->requests() == before + 1);
  CHECK(error.kind == ErrorKind::read);
  CHECK(error.says("does not serve ranges"));
}

TEST_CASE("what cannot be is refused when the store is made") {
  const auto make = [](const S3Config& config, int64_t part_bytes = 1) {
    return caught([&] {
             S3Objects store({.s3 = config, .part_bytes = part_bytes}, fixed_credentials({}),
                             std::make_shared<ScriptedS3>());
           })
        .kind;
  };
  CHECK(make(scripted_config(), 0) == ErrorKind::config);
  CHECK(make({.endpoint = "ftp://host"}) == ErrorKind::config);
  CHECK(make({.region = "no region"}) == ErrorKind::config);
  CHECK(make({.endpoint = "http://host", .region = ""}) == ErrorKind::config);
  CHECK(make({.max_attempts = 0}) == ErrorKind::config);
  S3Config never_idle = scripted_config();
  never_idle.http.max_idle_s = 0;
  CHECK(make(never_idle) == ErrorKind::config);
}

}  // namespace s3io::testing::s3_objects_test
