// Tokens of documents: windows and documents are what lies in the objects, in any order.
#include "format/token_form.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <string>

#include "leak_check.h"
#include "memory_store.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "testing.h"

namespace s3io::testing::token_form_test {

// Documents of uint16 tokens in objects with gaps between them; columns lie at odd addresses.
class Corpus {
 public:
  Corpus(const std::vector<int64_t>& counts, int64_t most, uint64_t seed) : random_(seed) {
    for (const int64_t count : counts) {
      Bytes object;
      Bytes starts(1);
      Bytes lengths(3);
      for (int64_t number = 0; number < count; ++number) {
        object.resize(object.size() + 2 * any(5));
        std::vector<uint16_t> tokens(any(4) == 0 ? 0 : any(static_cast<uint64_t>(most)));
        for (uint16_t& token : tokens) token = static_cast<uint16_t>(random_());
        append(starts, static_cast<uint64_t>(object.size()));
        append(lengths, static_cast<uint32_t>(tokens.size()));
        for (const uint16_t token : tokens) append(object, token);
        documents_.push_back(std::move(tokens));
      }
      object.resize(object.size() + any(3));
      objects_.push_back(std::move(object));
      starts_.push_back(std::move(starts));
      lengths_.push_back(std::move(lengths));
      counts_.push_back(count);
    }
  }

  std::shared_ptr<Documents> documents(const RecordOrder* selected = nullptr) const {
    std::vector<DocumentTable> tables;
    for (size_t object = 0; object < objects_.size(); ++object) {
      tables.push_back({.num_documents = counts_[object],
                        .starts = starts_[object].data() + 1,
                        .lengths = lengths_[object].data() + 3,
                        .end = static_cast<int64_t>(objects_[object].size())});
    }
    return std::make_shared<Documents>(std::move(tables), 2, selected, nullptr);
  }

  std::shared_ptr<RecordSource> source(TokenForm::Layout layout, TokenPart part,
                                       int64_t block_bytes) const {
    auto store =
        std::make_shared<MemoryStore>(MemoryStore::Options{.block_bytes = block_bytes, .seed = 3});
    std::vector<std::string> paths;
    std::vector<ObjectVersion> versions;
    for (size_t object = 0; object < objects_.size(); ++object) {
      paths.push_back(std::to_string(object));
      store->put(paths.back(), objects_[object]);
      versions.push_back(store->stat(paths.back()).version);
    }
    Objects objects = copied_objects(paths, std::move(versions));
    auto form =
        std::make_shared<TokenForm>(std::move(layout), std::vector{std::move(part)}, objects.paths,
                                    BatchForm::Options{.alignment = block_bytes});
    return std::make_shared<RecordSource>(std::move(store), std::move(objects), std::move(form),
                                          ReadOptions{});
  }

  const std::vector<std::vector<uint16_t>>& all() const { return documents_; }
  int64_t longest() const {
    size_t longest = 0;
    for (const auto& document : documents_) longest = std::max(longest, document.size());
    return static_cast<int64_t>(longest);
  }
  uint64_t any(uint64_t bound) { return random_() % bound; }

 private:
  template <typename Number>
  static void append(Bytes& bytes, Number number) {
    const size_t end = bytes.size();
    bytes.resize(end + sizeof(number));
    std::memcpy(bytes.data() + end, &number, sizeof(number));
  }

  std::mt19937_64 random_;
  std::vector<Bytes> objects_, starts_, lengths_;
  std::vector<int64_t> counts_;
  std::vector<std::vector<uint16_t>> documents_;
};

Field token(ScalarType output) { return {.type = ScalarType::uint16, .output = output}; }

std::vector<int64_t> values_of(const TensorView& tensor, int64_t count) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  std::memcpy(values.data(), tensor.data, values.size() * 8);
  return values;
}

// The stream of an epoch, by its pieces one token at a time.
std::vector<int64_t> stream_of(const Corpus& corpus, const DocumentStream& stream, int64_t epoch,
                               int64_t tokens) {
  std::vector<int64_t> found;
  std::vector<DocumentStream::Piece> pieces;
  for (int64_t at = 0; at < tokens; ++at) {
    pieces.clear();
    stream.locate(epoch, at, 1, pieces);
    REQUIRE(pieces.size() == 1);
    REQUIRE(pieces[0].count == 1);
    found.push_back(corpus.all()[static_cast<size_t>(pieces[0].document)]
                                [static_cast<size_t>(pieces[0].offset)]);
  }
  return found;
}

TEST_CASE("a window is what the stream of documents has there") {
  const LeakCheck leaks;
  std::mt19937_64 random(190);
  for (int round = 0; round < 30; ++round) {
    CAPTURE(round);
    Corpus corpus({12, 0, 7, 21}, round % 2 == 0 ? 9 : 700, random());
    const RecordOrderPtr part =
        select_order(sequential_order(25),
                     {{.offset = 3, .count = 25, .permutation = ViewStage::Shuffle{40, random()}}});
    const bool selects = round % 3 == 0;
    const auto documents = corpus.documents(selects ? part.get() : nullptr);
    std::vector<int64_t> numbers(25);
    part->epoch(0)->records(0, numbers);
    const auto blocks = std::make_shared<DocumentBlocks>(
        documents, DocumentBlocks::Config{.block_documents = 1 + static_cast<int64_t>(random() % 9),
                                          .is_shuffled = round % 5 != 0,
                                          .seed = random()});
    int64_t expected_tokens = 0;
    for (int64_t number = 0; number < 40; ++number) {
      std::vector<int64_t> length(1);
      documents->lengths(number, length);
      const bool is_in = !selects || std::ranges::count(numbers, number) == 1;
      REQUIRE(length[0] == (is_in ? documents->length(number) : 0));
      expected_tokens += length[0];
    }
    REQUIRE(blocks->num_tokens() == expected_tokens);
    TokenForm::Layout layout{.token = token(ScalarType::int64),
                             .window = 1 + static_cast<int64_t>(random() % 30),
                             .stride = 1 + static_cast<int64_t>(random() % 30),
                             .with_documents = round % 2 == 0,
                             .kept_blocks = 1 + static_cast<int64_t>(random() % 3)};
    const int64_t windows =
        TokenForm::windows_in(blocks->num_tokens(), layout.window, layout.stride);
    if (windows == 0) continue;
    const auto source = corpus.source(layout, {documents, blocks}, round % 2 == 0 ? 1 : 512);
    const DocumentStream stream(blocks, 2);
    BatchFetcher fetcher(source, nullptr);
    Batch batch;
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      const std::vector<int64_t> tokens = stream_of(corpus, stream, epoch, blocks->num_tokens());
      std::vector<int64_t> records;
      std::vector<int64_t> expected;
      for (int row = 0; row < 5; ++row) {
        const auto window = static_cast<int64_t>(random() % static_cast<uint64_t>(windows));
        records.push_back(epoch * windows + window);
        const auto first = tokens.begin() + window * layout.stride;
        expected.insert(expected.end(), first, first + layout.window);
      }
      fetcher.fetch(records, batch);
      const size_t ids = layout.with_documents ? 2 : 0;
      CHECK(values_of(batch.view.tensors[ids], std::ssize(expected)) == expected);
    }
  }
}

TEST_CASE("documents are delivered one after the other, or padded with zeros") {
  const LeakCheck leaks;
  Corpus corpus({5, 9}, 50, 191);
  for (const TokenRecords records : {TokenRecords::documents, TokenRecords::padded}) {
    const auto source = corpus.source(
        {.token = token(ScalarType::int64), .records = records, .longest = corpus.longest()},
        {corpus.documents(), nullptr}, 512);
    BatchFetcher fetcher(source, nullptr);
    Batch batch;
    const std::vector<int64_t> wanted{13, 0, 4, 4, 7};
    fetcher.fetch(wanted, batch);
    std::vector<int64_t> expected;
    size_t longest = 0;
    for (const int64_t number : wanted) {
      longest = std::max(longest, corpus.all()[static_cast<size_t>(number)].size());
    }
    for (const int64_t number : wanted) {
      const auto& document = corpus.all()[static_cast<size_t>(number)];
      expected.insert(expected.end(), document.begin(), document.end());
      if (records == TokenRecords::padded) {
        expected.resize(expected.size() + longest - document.size());
      }
    }
    CHECK(values_of(batch.view.tensors[0], std::ssize(expected)) == expected);
    fetcher.fetch({}, batch);
    CHECK(batch.view.count == 0);
  }
}

TEST_CASE("a table that is wrong about a document is an error of its batch") {
  const LeakCheck leaks;
  Corpus corpus({4}, 50, 192);
  const uint64_t beyond = 1 << 20;
  const uint32_t three = 3;
  std::vector<DocumentTable> tables{{.num_documents = 1,
                                     .starts = reinterpret_cast<const std::byte*>(&beyond),
                                     .lengths = reinterpret_cast<const std::byte*>(&three),
                                     .end = 100}};
  const auto documents = std::make_shared<Documents>(tables, 2, nullptr, nullptr);
  const auto source = corpus.source(
      {.token = token(ScalarType::uint16), .records = TokenRecords::documents, .longest = 50},
      {documents, nullptr}, 1);
  BatchFetcher fetcher(source, nullptr);
  Batch batch;
  const std::vector<int64_t> first{0};
  CHECK_THROWS_AS(fetcher.fetch(first, batch), Error);
}

class ChangingLengths final : public DocumentLengths {
 public:
  int64_t num_documents() const override { return 6; }
  void lengths(int64_t, std::span<int64_t> out) const override { std::ranges::fill(out, length); }
  int64_t length = 5;
};

TEST_CASE("lengths that change after they were added up are an error, until they are as before") {
  const auto lengths = std::make_shared<ChangingLengths>();
  const auto blocks = std::make_shared<DocumentBlocks>(
      lengths, DocumentBlocks::Config{.block_documents = 3, .is_shuffled = true});
  const DocumentStream stream(blocks, 2);
  std::vector<DocumentStream::Piece> pieces;
  for (const int64_t length : {0, 4, 6}) {
    lengths->length = length;
    for (const int64_t first : {0, 14, 25}) {
      CHECK_THROWS_AS(stream.locate(0, first, 5, pieces), Error);
    }
  }
  lengths->length = 5;
  pieces.clear();
  stream.locate(0, 0, 30, pieces);
  CHECK(pieces.size() == 6);
}

}  // namespace s3io::testing::token_form_test
