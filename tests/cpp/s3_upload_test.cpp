// Objects of S3 that are written, whatever the server does: whole and proven, or the old one stays
// and no upload is left.
#include "http/s3_upload.h"

#include <doctest/doctest.h>

#include "base/crc32c.h"
#include "http/s3_uploads.h"
#include "scripted_transport.h"

namespace s3io::testing::s3_upload_test {

const std::string kPath = "s3://bucket/a key+.bin";
const WaitCallback kNothing;

std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Scene {
  explicit Scene(S3Config config = scripted_config())
      : client(std::make_shared<S3Client>(std::move(config), fixed_credentials(kCanary), s3)) {}

  std::unique_ptr<S3Upload> upload(S3UploadOptions options = {.part_bytes = 1000,
                                                              .parts_in_flight = 3}) const {
    return std::make_unique<S3Upload>(client, kPath, std::move(options));
  }

  std::shared_ptr<ScriptedS3> s3 = std::make_shared<ScriptedS3>();
  std::shared_ptr<S3Client> client;
};

// The error of `work`; none: there was none.
template <typename Work>
std::optional<Error> error_of(const Work& work) {
  try {
    work();
    return std::nullopt;
  } catch (const Error& error) {
    return error;
  }
}

bool says(const Error& error, const std::string& text) {
  return std::string(error.what()).find(text) != std::string::npos;
}

TEST_CASE("what is written in any pieces, copied or lent, is the object") {
  std::mt19937_64 random(5);
  for (const int64_t size : {0, 1, 999, 1000, 1001, 2000, 7777}) {
    for (const bool is_lent : {false, true}) {
      Scene scene;
      const Bytes bytes = random_bytes(size, static_cast<uint64_t>(size));
      const auto upload = scene.upload();
      std::weak_ptr<int> lent;
      for (size_t at = 0; at < bytes.size();) {
        const auto count = std::min<size_t>(random() % 2500 + 1, bytes.size() - at);
        const auto piece = std::span(bytes).subspan(at, count);
        if (is_lent) {
          const auto owner = std::make_shared<int>(0);
          lent = owner;
          upload->lend(piece, owner, kNothing);
        } else {
          upload->write(piece, kNothing);
        }
        at += count;
      }
      CHECK(upload->size() == size);
      const WrittenObject written = upload->finish(kNothing);
      CHECK(written.size_bytes == size);
      CHECK(written.crc32c == crc32c(0, bytes));
      CHECK(scene.s3->bytes_of(kPath) == text_of(bytes));
      CHECK(scene.s3->uploads() == 0);
      upload->take_returned();
      CHECK(lent.expired());
      // A short object is one request; of a long one each part, three more, and a look at it.
      CHECK(scene.s3->requests() == (size <= 1000 ? 1 : (size + 999) / 1000 + 3));
    }
  }
}

TEST_CASE("rows are followed by zeros up to their stride") {
  Scene scene;
  const auto upload = scene.upload();
  const Bytes rows = random_bytes(700, 1);
  CHECK(error_of([&] { upload->write_rows(rows, 3, 5, kNothing); })->kind() == ErrorKind::config);
  upload->write_rows(rows, 7, 12, kNothing);
  upload->finish(kNothing);
  std::string expected;
  for (size_t at = 0; at < rows.size(); at += 7) {
    expected += text_of(rows).substr(at, 7) + std::string(5, '\0');
  }
  CHECK(scene.s3->bytes_of(kPath) == expected);
}

TEST_CASE("there are 10,000 parts at most: of one length where the size is known, else they grow") {
  const Bytes bytes = random_bytes(25'000, 2);
  Scene scene;
  const auto known = scene.upload({.part_bytes = 1, .size_bytes = 25'000});
  known->write(bytes, kNothing);
  known->finish(kNothing);
  CHECK(scene.s3->bytes_of(kPath) == text_of(bytes));
  CHECK(scene.s3->part_sizes().size() == 8334);
  CHECK(scene.s3->part_sizes().front() == 3);
  const auto unknown = scene.upload({.part_bytes = 1});
  const auto error = error_of([&] { unknown->write(random_bytes(40'000, 3), kNothing); });
  REQUIRE(error);
  // 2500 parts of each 1, 2, 4 and 8 bytes, and one that none has a number for.
  CHECK(unknown->size() == 37'508);
  CHECK(says(*error, "size_bytes="));
  CHECK(scene.s3->uploads() == 0);
}

// What may become of a request.
struct Fault {
  std::string name;
  bool is_done;   // by the server, before the reply is lost
  bool may_pass;  // where it comes once
  bool may_come;  // the server may yet do it, as far as the reply tells
  bool may_be_done;
  ScriptedS3::Script script;
};

std::vector<Fault> faults() {
  const auto becomes = [](ScriptedReply reply) {
    return
        [reply = std::move(reply)](int, const HttpRequest&, ScriptedReply& real) { real = reply; };
  };
  std::vector<Fault> all;
  for (const bool is_done : {false, true}) {
    all.push_back({"500", is_done, true, false, true,
                   becomes(ScriptedReply::error("500 X", "InternalError"))});
    all.push_back({"503 of a write that has begun", is_done, true, true, true,
                   becomes(ScriptedReply::error("503 X", "SlowDownWrite"))});
    all.push_back({"504", is_done, true, true, true, becomes({.status = "504 X"})});
    all.push_back({"broken", is_done, true, true, true, becomes({.outcome = HttpOutcome::broken})});
    all.push_back({"late", is_done, true, true, true, becomes({.outcome = HttpOutcome::late})});
    all.push_back({"garbage", is_done, true, true, true, becomes({.status = "no status"})});
  }
  const auto none = [&](const std::string& name, bool may_pass, ScriptedReply reply) {
    all.push_back({name, false, may_pass, false, false, becomes(std::move(reply))});
  };
  none("unreached", true, {.outcome = HttpOutcome::unreached});
  none("503 of one who asks too often", true, ScriptedReply::error("503 X", "SlowDown"));
  none("403", false, ScriptedReply::error("403 X", "AccessDenied"));
  none("400", false, ScriptedReply::error("400 X", "InvalidRequest"));
  none("untrusted", false, {.outcome = HttpOutcome::untrusted});
  none("409", false, ScriptedReply::error("409 X", "OperationAborted"));
  return all;
}

// Writes an object of so many bytes where there was another one, with a fault in one request or in
// all of this kind from that one on. Returns how many requests there were.
int write_with(const Fault& fault, int64_t size, int at, bool is_once, bool keeps_metadata) {
  S3Config config = scripted_config();
  config.max_attempts = 3;
  Scene scene(std::move(config));
  scene.s3->keeps_metadata = keeps_metadata;
  const Bytes old = random_bytes(50, 1), bytes = random_bytes(size, 2);
  scene.s3->put(kPath, old);
  std::string method, kind;
  bool is_placing = false;  // the request that is hit makes the object
  const auto is_hit = [&](int number, const HttpRequest& request) {
    if (number == at) {
      method = request.method, kind = request.url.substr(request.url.find('?') + 1);
      const std::string& way = method == "PUT" ? "partNumber=" : "uploads=";
      is_placing = (method == "PUT" || method == "POST") && kind.find(way) == std::string::npos;
    }
    if (is_once || number < at) return number == at;
    return request.method == method && (method != "POST" || request.url.ends_with(kind));
  };
  scene.s3->ignores = [&](int number, const HttpRequest& request) {
    return is_hit(number, request) && !fault.is_done;
  };
  scene.s3->script = [&](int number, const HttpRequest& request, ScriptedReply& reply) {
    if (is_hit(number, request)) fault.script(number, request, reply);
  };
  std::string left_behind;
  const auto error = error_of([&] {
    const auto upload = scene.upload();
    upload->write(bytes, kNothing);
    left_behind = upload->finish(kNothing).left_behind;
  });
  CAPTURE(fault.name);
  CAPTURE(fault.is_done);
  CAPTURE(size);
  CAPTURE(at);
  CAPTURE(is_once);
  const bool is_new = scene.s3->bytes_of(kPath) == text_of(bytes);
  const bool is_begin = kind == "uploads=";
  if (!error) CHECK(is_new);
  if (is_once && fault.may_pass && keeps_metadata) CHECK(!error);
  if (error) {
    CAPTURE(error->what());
    const bool is_unsure = says(*error, "is unknown") || says(*error, "was completed, but");
    CHECK((is_new ? is_unsure : scene.s3->bytes_of(kPath) == text_of(old)));
    CHECK(says(*error, "s3://bucket/a key+.bin"));
    CHECK(!says(*error, kCanary.secret_key));
    CHECK(error->kind() != ErrorKind::read);
    // What no reply speaks of may come when nobody looks any more.
    const bool may_come = is_placing && fault.may_come;
    if (method != "HEAD") CHECK(error->is_undone() == (!is_new && !may_come));
  }
  // One that the server began without saying so has no id: it can only be told of.
  if (is_begin && fault.may_be_done) {
    CHECK(says(Error(ErrorKind::write, error ? error->what() : left_behind),
               "`python -m torch_s3io uploads 's3://bucket/a key+.bin'` lists it"));
  } else {
    CHECK(scene.s3->uploads() == 0);
    CHECK(left_behind.empty());
  }
  return scene.s3->requests();
}

TEST_CASE("a fault in any request: the new object whole, or the old one and no upload") {
  for (const Fault& fault : faults()) {
    for (const int64_t size : {300, 3500}) {
      for (const bool is_once : {true, false}) {
        for (const bool keeps : {true, false}) {
          for (int at = 0, count = 1; at < count; ++at) {
            count = write_with(fault, size, at, is_once, keeps);
          }
        }
      }
    }
  }
}

TEST_CASE("on a server that keeps no metadata, ETags say whether a write is in place") {
  for (const int64_t size : {300, 3500}) {
    for (const bool is_changed : {false, true}) {
      Scene scene;
      scene.s3->keeps_metadata = false;
      scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
        if (is_changed && request.method == "HEAD") reply.set("ETag", "\"version-x\"");
      };
      const auto error = error_of([&] {
        const auto upload = scene.upload();
        upload->write(random_bytes(size, 2), kNothing);
        upload->finish(kNothing);
      });
      CHECK(error.has_value() == (is_changed && size == 3500));
      if (error) CHECK(says(*error, "another object"));
      CHECK(scene.s3->bytes_of(kPath) == text_of(random_bytes(size, 2)));
    }
  }
}

bool is_completion(const HttpRequest& request) {
  return request.method == "POST" && request.url.find("uploadId=") != std::string::npos;
}

TEST_CASE("a completion of status 200 that says it failed is tried again, or proven") {
  for (const bool is_done : {false, true}) {
    for (const std::string body :
         {"<Error><Code>InternalError</Code></Error>",
          "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>", ""}) {
      Scene scene;
      const Bytes bytes = random_bytes(3500, 2);
      int completions = 0;
      scene.s3->ignores = [&](int, const HttpRequest& request) {
        return is_completion(request) && completions == 0 && !is_done;
      };
      scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
        if (is_completion(request) && completions++ == 0) reply = {.body = body};
      };
      const auto upload = scene.upload();
      upload->write(bytes, kNothing);
      const auto error = error_of([&] { upload->finish(kNothing); });
      CAPTURE(body);
      // What cannot be understood is not tried again, but looked after.
      CHECK(!error == (is_done || body.starts_with("<Error>")));
      CHECK(scene.s3->bytes_of(kPath) == (error ? "" : text_of(bytes)));
      CHECK(scene.s3->uploads() == 0);
    }
  }
}

TEST_CASE("a completion that was lost may come yet, whatever the server says of the next one") {
  Scene scene;
  int completions = 0;
  scene.s3->ignores = [&](int, const HttpRequest& request) { return is_completion(request); };
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
    if (!is_completion(request)) return;
    reply = {.body = "<Error><Code>InternalError</Code></Error>"};
    if (completions++ == 0) reply = {.outcome = HttpOutcome::broken};
  };
  const auto upload = scene.upload();
  upload->write(random_bytes(3500, 2), kNothing);
  const auto error = error_of([&] { upload->finish(kNothing); });
  REQUIRE(error);
  CHECK(completions == 4);
  CHECK_FALSE(error->is_undone());
  CHECK(says(*error, "the server may yet put it there"));
}

TEST_CASE("an upload that is gone after a completion that failed is looked after") {
  Scene scene;
  const Bytes bytes = random_bytes(3500, 2);
  int completions = 0, looks = 0;
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
    if (is_completion(request) && completions++ == 0) {
      reply = {.body = "<Error><Code>InternalError</Code></Error>"};  // it goes on all the same
    }
    if (request.method == "HEAD" && looks++ == 0) {
      reply = ScriptedReply::error("404 Not Found", "NoSuchKey");  // and is not there at once
    }
  };
  const auto upload = scene.upload();
  upload->write(bytes, kNothing);
  CHECK(upload->finish(kNothing).size_bytes == 3500);
  CHECK(completions == 2);
  CHECK(scene.s3->bytes_of(kPath) == text_of(bytes));
  CHECK(scene.s3->uploads() == 0);
}

TEST_CASE("an upload that is gone may yet be completed where that was asked for, else it is not") {
  for (const bool was_asked : {true, false}) {
    Scene scene;
    int completions = 0;
    scene.s3->ignores = [&](int, const HttpRequest& request) { return is_completion(request); };
    scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
      if (!is_completion(request)) return;
      CHECK(request.patience >= std::chrono::minutes(1));  // long ones take that
      reply = ScriptedReply::error("404 Not Found", "NoSuchUpload");
      if (completions++ == 0 && was_asked) {
        reply = {.body = "<Error><Code>InternalError</Code></Error>"};
      }
    };
    const auto upload = scene.upload();
    upload->write(random_bytes(3500, 2), kNothing);
    const auto error = error_of([&] { upload->finish(kNothing); });
    REQUIRE(error);
    CHECK(completions == (was_asked ? 2 : 1));
    CHECK(error->is_undone() == !was_asked);
    CHECK(says(*error, "the server may yet put it there") == was_asked);
  }
}

TEST_CASE("uploads that nobody has finished are found in pages, and aborted") {
  Scene scene;
  std::vector<std::unique_ptr<S3Upload>> open;
  for (const char* key : {"b", "a", "b", "a/2", "c"}) {
    const std::string path = message("s3://bucket/x/", key);
    open.push_back(
        std::make_unique<S3Upload>(scene.client, path, S3UploadOptions{.part_bytes = 1000}));
    open.back()->write(random_bytes(2500, 1), kNothing);
  }
  for (const size_t page_size : {1, 2, 1000}) {
    scene.s3->page_size = page_size;
    std::vector<std::string> paths;
    for (const OpenUpload& one : list_uploads(*scene.client, "s3://bucket/x/")) {
      paths.push_back(one.path.substr(14));
      CHECK(one.age_s == 3600);
    }
    CHECK(paths == std::vector<std::string>{"a", "a/2", "b", "b", "c"});
    CHECK(list_uploads(*scene.client, "s3://bucket/x/b").size() == 2);
    CHECK(list_uploads(*scene.client, "s3://bucket/y").empty());
    CHECK(list_uploads(*scene.client, "s3://bucket").size() == 5);
  }
  scene.s3->script = [](int, const HttpRequest&, ScriptedReply& reply) {
    reply.set("Date", "now");
  };
  for (const OpenUpload& one : list_uploads(*scene.client, "s3://bucket/x/b")) {
    CHECK_FALSE(one.age_s);  // by no other clock than the server's
  }
  scene.s3->script = nullptr;
  for (const OpenUpload& one : list_uploads(*scene.client, "s3://bucket/x/b")) {
    const S3Path object = parse_s3_path(one.path);
    abort_upload(*scene.client, object, one.id, kNothing);
    abort_upload(*scene.client, object, one.id, kNothing);
  }
  CHECK(scene.s3->uploads() == 3);
}

TEST_CASE("a list of uploads that does not end, or has one twice or of others, is refused") {
  Scene scene;
  const std::string one =
      "<Upload><Key>x/a</Key><UploadId>1</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated>"
      "</Upload>";
  const auto page = [](const std::string& uploads, const std::string& next) {
    return "<ListMultipartUploadsResult><IsTruncated>" +
           std::string(next.empty() ? "false" : "true") + "</IsTruncated><NextKeyMarker>" + next +
           "</NextKeyMarker>" + uploads + "</ListMultipartUploadsResult>";
  };
  int requests = 0;
  std::string body;
  scene.s3->script = [&](int, const HttpRequest&, ScriptedReply& reply) {
    reply.body = body.empty() ? page("", std::to_string(requests)) : body;
    ++requests;
  };
  const auto refusal = [&] {
    requests = 0;
    return *error_of([&] { list_uploads(*scene.client, "s3://bucket/x/"); });
  };
  for (const std::string& bad : {page(one + one, ""), page(one, "x/a"), page("", "x/a"),
                                 std::string("no"), std::string("<a/>")}) {
    body = bad;
    const Error error = refusal();
    CHECK(error.kind() == ErrorKind::data);
    CHECK(says(error, "s3://bucket/x/: "));
    CHECK(requests <= 2);
  }
  body.clear();  // empty pages for ever
  CHECK(says(refusal(), "does not end"));
  CHECK(requests == 10'000);
}

TEST_CASE("an object that is not to be replaced stays, whatever the server makes of conditions") {
  for (const int64_t size : {300, 3500}) {
    for (const bool heeds : {true, false}) {
      Scene scene;
      scene.s3->heeds_conditions = heeds;
      const Bytes old = random_bytes(50, 1), bytes = random_bytes(size, 2);
      const S3UploadOptions options{.object = {.if_absent = true}, .part_bytes = 1000};
      scene.s3->put(kPath, old);
      const auto error = error_of([&] { scene.upload(options); });
      REQUIRE(error);
      CHECK(error->kind() == ErrorKind::exists);
      CHECK(error_of([&] { put_object(scene.client, kPath, bytes, options); })->kind() ==
            ErrorKind::exists);
      CHECK(scene.s3->bytes_of(kPath) == text_of(old));
      scene.s3->remove(kPath);
      put_object(scene.client, kPath, bytes, options);
      CHECK(scene.s3->bytes_of(kPath) == text_of(bytes));
    }
    // Another one comes meanwhile.
    Scene scene;
    const auto upload = scene.upload({.object = {.if_absent = true}, .part_bytes = 1000});
    upload->write(random_bytes(size, 2), kNothing);
    scene.s3->put(kPath, random_bytes(50, 1));
    const auto error = error_of([&] { upload->finish(kNothing); });
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::exists);
    CHECK(scene.s3->bytes_of(kPath).size() == 50);
    CHECK(scene.s3->uploads() == 0);
    // Our own is in place, though the reply was lost: the next attempt finds it.
    Scene lost;
    int times = 0;
    lost.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
      const bool is_part = request.url.find("partNumber=") != std::string::npos;
      const bool makes = request.method == "POST"
                             ? request.url.find("uploadId=") != std::string::npos
                             : request.method == "PUT" && !is_part;
      if (makes && times++ == 0) reply = {.outcome = HttpOutcome::broken};
    };
    const Bytes bytes = random_bytes(size, 3);
    put_object(lost.client, kPath, bytes, {.object = {.if_absent = true}, .part_bytes = 1000});
    CHECK(lost.s3->bytes_of(kPath) == text_of(bytes));
  }
}

TEST_CASE("whoever gives up gets what was lent back, and no upload is left") {
  Scene scene;
  scene.s3->script = [](int number, const HttpRequest&, ScriptedReply& reply) {
    reply.is_lost = number >= 2 && number <= 3;
  };
  const auto upload = scene.upload();
  const Bytes bytes = random_bytes(3000, 4);
  std::weak_ptr<int> lent;
  {
    const auto owner = std::make_shared<int>(0);
    lent = owner;
    upload->lend(bytes, owner, kNothing);
  }
  CHECK(!lent.expired());
  struct Stop {};
  CHECK_THROWS_AS(upload->finish([] { throw Stop(); }), Stop);
  upload->take_returned();
  CHECK(lent.expired());
  CHECK(scene.s3->uploads() == 0);
  CHECK(upload->left_behind().empty());
  CHECK(error_of([&] { upload->write(bytes, kNothing); })->kind() == ErrorKind::config);
}

TEST_CASE("an upload that cannot be aborted is named, and so is the way to do it") {
  Scene scene;
  scene.s3->script = [](int, const HttpRequest& request, ScriptedReply& reply) {
    const bool is_part = request.url.find("partNumber=3") != std::string::npos;
    if (is_part || request.method == "DELETE")
      reply = ScriptedReply::error("403 X", "AccessDenied");
  };
  const auto upload = scene.upload();
  const auto error = error_of([&] {
    upload->write(random_bytes(3500, 4), kNothing);
    upload->finish(kNothing);
  });
  REQUIRE(error);
  CHECK(error->kind() == ErrorKind::access);
  CHECK(says(*error, "part 3 of s3://bucket/a key+.bin"));
  CHECK(says(*error, "upload/1+ could not be aborted"));
  CHECK(says(*error, "`python -m torch_s3io uploads 's3://bucket/a key+.bin'` lists it"));
}

TEST_CASE(
    "what a server repeats of the keys, or writes to the terminal, is in no error of a write") {
  const std::string echoed = kCanary.session_token + " \x1b[31m\n" + kCanary.secret_key;
  const std::vector<ScriptedS3::Script> scripts = {
      [&](int, const HttpRequest& request, ScriptedReply& reply) {
        if (!is_completion(request)) return;
        reply =
            ScriptedReply::error("200 OK", kCanary.access_key, "<Message>" + echoed + "</Message>");
      },
      [&](int, const HttpRequest& request, ScriptedReply& reply) {
        if (is_completion(request)) reply = {.body = "<" + echoed + ">"};
      },
      [&](int, const HttpRequest& request, ScriptedReply& reply) {
        if (request.url.ends_with("?uploads=")) {
          reply.body = "<InitiateMultipartUploadResult><UploadId>" + echoed +
                       "</UploadId></InitiateMultipartUploadResult>";
        } else {
          reply = ScriptedReply::error("403 Forbidden", "AccessDenied");
        }
      },
      [&](int, const HttpRequest& request, ScriptedReply& reply) {
        if (request.method == "PUT") {
          reply.set("x-amz-checksum-crc32c", kCanary.session_token + "\x1b[31m");
        }
      },
  };
  for (size_t number = 0; number < scripts.size(); ++number) {
    CAPTURE(number);
    Scene scene;
    scene.s3->script = scripts[number];
    scene.s3->ignores = [&](int, const HttpRequest& request) { return is_completion(request); };
    const auto error = error_of(
        [&] { put_object(scene.client, kPath, random_bytes(3500, 1), {.part_bytes = 1000}); });
    REQUIRE(error);
    CAPTURE(error->what());
    CHECK(says(*error, kPath));
    for (const char* hidden : {"canary", kCanary.access_key.c_str(), "\x1b", "\n"}) {
      CHECK_FALSE(says(*error, hidden));
    }
  }
}

TEST_CASE("no more parts are on their way than may be") {
  struct GivenUp {};
  Scene scene;
  int sent = 0;
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
    reply.is_lost = request.method == "PUT";
    sent += reply.is_lost ? 1 : 0;
  };
  const auto upload = scene.upload({.part_bytes = 1000, .parts_in_flight = 3});
  CHECK_THROWS_AS(upload->write(random_bytes(9000, 1), [] { throw GivenUp(); }), GivenUp);
  CHECK(sent == 3);
  CHECK(scene.s3->uploads() == 0);
}

TEST_CASE("a key with control characters is on one line in what errors and warnings say") {
  const std::string path = "s3://bucket/a\n\x1b[2J", shown = "s3://bucket/a\\n\\x1b[2J";
  Scene scene;
  scene.s3->put(path, random_bytes(50, 1));
  const auto is_shown = [&](const std::string& text) {
    return text.find(shown) != std::string::npos && text.find_first_of("\n\x1b") == text.npos;
  };
  const auto write = [&](const S3UploadOptions& options) {
    S3Upload upload(scene.client, path, options, kNothing);
    upload.write(random_bytes(2500, 2), kNothing);
    return upload.finish(kNothing).left_behind;
  };
  const S3UploadOptions options{.part_bytes = 1000};
  const std::vector<std::function<void()>> calls{
      [&] { write({.object = {.if_absent = true}}); },
      [&] { write({.part_bytes = 1000, .size_bytes = 2501}); },
      [&] { S3Upload(scene.client, path, options, kNothing).write_rows(Bytes(3), 2, 2, kNothing); },
      [&] {
        scene.s3->script = [](int, const HttpRequest&, ScriptedReply& reply) { reply.body = ""; };
        write(options);
      },
      [&] { list_uploads(*scene.client, path); },
      [&] {
        scene.s3->script = [](int, const HttpRequest&, ScriptedReply& reply) {
          reply = ScriptedReply::error("403 Forbidden", "AccessDenied");
        };
        write(options);
      },
      [&] { remove_object(*scene.client, path, kNothing); },
  };
  for (const auto& call : calls) {
    const auto error = error_of(call);
    REQUIRE(error);
    CAPTURE(error->what());
    CHECK(is_shown(error->what()));
  }
  bool is_begun = false;
  scene.s3->script = [&](int, const HttpRequest& request, ScriptedReply& reply) {
    if (request.url.ends_with("uploads=") && !std::exchange(is_begun, true)) {
      reply = {.outcome = HttpOutcome::broken};
    }
  };
  const std::string left_behind = write(options);  // of an upload whose number was not said
  CHECK(left_behind.ends_with(how_to_find_upload(path)));
  CHECK(left_behind == on_one_line(left_behind));
}

TEST_CASE("removing what is not there is well") {
  Scene scene;
  scene.s3->put(kPath, random_bytes(50, 1));
  remove_object(*scene.client, kPath, kNothing);
  CHECK(scene.s3->bytes_of(kPath).empty());
  remove_object(*scene.client, kPath, kNothing);
  CHECK(error_of([&] { remove_object(*scene.client, "s3://bucket", kNothing); })->kind() ==
        ErrorKind::config);
}

TEST_CASE("a checksum in the reply that is of other bytes is an error") {
  Scene scene;
  scene.s3->script = [](int, const HttpRequest&, ScriptedReply& reply) {
    reply.set("x-amz-checksum-crc32c", "AAAAAA==");
  };
  for (const int64_t size : {300, 3500}) {
    const auto error = error_of(
        [&] { put_object(scene.client, kPath, random_bytes(size, 1), {.part_bytes = 1000}); });
    REQUIRE(error);
    CHECK(says(*error, "the server has other bytes"));
    CHECK(scene.s3->uploads() == 0);
  }
  CHECK(crc32c_in_base64(0xe3069283) == "4waSgw==");  // of "123456789"
}

TEST_CASE("the command that finds an upload can be typed, whatever is in the key") {
  const auto command = [](std::string_view word) {
    return message("`python -m torch_s3io uploads ", word, "` lists it");
  };
  const std::string bucket = "s3://bucket/";
  CHECK(says(Error(ErrorKind::write, how_to_find_upload(bucket + "it's")),
             command(R"('s3://bucket/it'\''s')")));
  for (const char* control : {"\x1b[31m", "\n", "\x7f`"}) {
    CHECK(says(Error(ErrorKind::write, how_to_find_upload(bucket + control)),
               command("'s3://bucket/'")));
    CHECK(says(Error(ErrorKind::write, how_to_find_upload(bucket + "a b" + control)),
               command("'s3://bucket/a b'")));
  }
}

}  // namespace s3io::testing::s3_upload_test
