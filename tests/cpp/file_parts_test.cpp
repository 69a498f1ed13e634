// Files that are put together from pieces, against a file that is made in memory.
#include "store/file_parts.h"

#include <doctest/doctest.h>

#include "writing.h"

namespace s3io::testing::file_parts_test {

struct Plan {
  std::vector<FilePart> parts;
  std::vector<FilePiece> pieces;
  Bytes file;  // as it has to be
};

// Parts of up to three pieces, empty ones among them, with gaps before, between and behind; from
// `begin` on.
Plan random_plan(std::mt19937_64& random, const Bytes& source, int64_t begin, int64_t most_bytes) {
  const auto up_to = [&random](int64_t most) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(most + 1));
  };
  Plan plan;
  int64_t at = begin;
  for (int64_t part = up_to(20); part >= 0; --part) {
    at += up_to(1) * up_to(5000);
    FilePart made{.begin = at, .num_pieces = random() % 4};
    for (size_t piece = 0; piece < made.num_pieces; ++piece) {
      at += up_to(1) * up_to(20);
      const int64_t size = up_to(3) == 0 ? up_to(most_bytes) : up_to(9);
      const int64_t from = up_to(std::ssize(source) - size);
      plan.pieces.push_back(
          {at, std::span(source).subspan(static_cast<size_t>(from), static_cast<size_t>(size))});
      at += size;
    }
    at += up_to(1) * up_to(20);
    made.end = at;
    plan.parts.push_back(made);
  }
  plan.file.resize(static_cast<size_t>(at));
  for (const FilePiece& piece : plan.pieces) {
    if (!piece.data.empty()) {
      std::memcpy(plan.file.data() + piece.begin, piece.data.data(), piece.data.size());
    }
  }
  return plan;
}

TEST_CASE("parts are where they belong, zeros between them, and each is summed") {
  const LeakCheck leaks;
  const TemporaryFolder folder;
  const std::string path = folder.path("data");
  const Bytes source = random_bytes(4'000'000, 1);
  std::mt19937_64 random(2);
  for (const int64_t most_bytes : {50, 40'000, 3'500'000}) {
    for (int round = 0; round < rounds(12); ++round) {
      ObjectWriter writer(path, std::nullopt, write_engine({.direct = DirectMode::automatic}));
      const auto before = static_cast<int64_t>(random() % 3000);
      writer.write(std::span(source).first(static_cast<size_t>(before)), kNoCallback);
      Plan plan = random_plan(random, source, before, most_bytes);
      std::memcpy(plan.file.data(), source.data(), static_cast<size_t>(before));
      const auto sums = write_parts(writer, plan.parts, plan.pieces, kNoCallback);
      CHECK(writer.size() == std::ssize(plan.file));
      const WrittenObject written = writer.finish(kNoCallback);
      CHECK(holds(path, plan.file));
      CHECK(written.crc32c == crc32c_by_tables(0, plan.file));
      REQUIRE(sums.size() == plan.parts.size());
      for (size_t part = 0; part < sums.size(); ++part) {
        const auto [begin, end, num_pieces] = plan.parts[part];
        const auto bytes = std::span(plan.file).subspan(static_cast<size_t>(begin),
                                                        static_cast<size_t>(end - begin));
        CHECK(sums[part] == crc32c_by_tables(0, bytes));
      }
    }
  }
}

TEST_CASE("every byte of a part is copied once") {
  const TemporaryFolder folder;
  const Bytes source = random_bytes(9'000'000, 1);
  const auto engine = write_engine({.direct = DirectMode::automatic});
  ObjectWriter writer(folder.path("data"), std::nullopt, engine);
  write_parts(writer, std::vector<FilePart>{{0, std::ssize(source), 1}},
              std::vector<FilePiece>{{0, source}}, kNoCallback);
  CHECK(engine->counters().copied_bytes == std::ssize(source));
}

TEST_CASE("pieces that do not fit are refused before anything is written") {
  const TemporaryFolder folder;
  const Bytes source = random_bytes(100, 1);
  const std::span<const std::byte> all = source;
  ObjectWriter writer(folder.path("data"), std::nullopt, write_engine({}));
  writer.write(all.first(10), kNoCallback);
  using Parts = std::vector<FilePart>;
  using Pieces = std::vector<FilePiece>;
  const std::vector<std::pair<Parts, Pieces>> wrong = {
      {Parts{{9, 20, 0}}, Pieces{}},                                           // in what is there
      {Parts{{20, 19, 0}}, Pieces{}},                                          // ends too early
      {Parts{{20, 30, 0}, {29, 40, 0}}, Pieces{}},                             // overlap
      {Parts{{20, 30, 1}}, Pieces{}},                                          // no such piece
      {Parts{{20, 30, 1}}, Pieces{{19, all.first(3)}}},                        // before its part
      {Parts{{20, 30, 1}}, Pieces{{28, all.first(3)}}},                        // beyond its part
      {Parts{{20, 30, 1}}, Pieces{{INT64_MAX, all.first(3)}}},                 // far beyond it
      {Parts{{20, 30, 2}}, Pieces{{20, all.first(3)}, {22, all.first(3)}}},    // overlap
      {Parts{{10, 20, 1}, {20, 30, 1}}, Pieces{{10, all.first(3)}, {40, {}}}}  // in the second one
  };
  for (const auto& [parts, pieces] : wrong) {
    CHECK_THROWS_AS(write_parts(writer, parts, pieces, kNoCallback), Error);
    CHECK(writer.size() == 10);
  }
  write_parts(writer, Parts{{20, 30, 1}}, Pieces{{25, all.first(5)}}, kNoCallback);
  writer.finish(kNoCallback);
  Bytes expected(30);
  std::memcpy(expected.data(), source.data(), 10);
  std::memcpy(expected.data() + 25, source.data(), 5);
  CHECK(holds(folder.path("data"), expected));
}

TEST_CASE("an error in the middle ends the file") {
  const TemporaryFolder folder;
  const Bytes source = random_bytes(5'000'000, 1);
  const auto plan =
      std::make_shared<FaultPlan>(FaultPlan{.by_number = {{1, Fault{.error_number = EIO}}}});
  ObjectWriter writer(folder.path("data"), std::nullopt, write_engine({.faults = plan}));
  CHECK_THROWS_AS(
      {
        write_parts(writer, std::vector<FilePart>{{0, std::ssize(source), 1}},
                    std::vector<FilePiece>{{0, source}}, kNoCallback);
        writer.finish(kNoCallback);
      },
      Error);
  CHECK_FALSE(writer.is_open());
  CHECK(entries_of(folder.path("")).empty());
}

}  // namespace s3io::testing::file_parts_test
