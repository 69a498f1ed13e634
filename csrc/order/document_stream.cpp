#include "order/document_stream.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "order/key.h"

namespace s3io {
namespace {

constexpr size_t kKeptEpochs = 4;  // the reader is in two; the parts of a mixture have their own

// Where the first of ascending ends lies that is beyond `value`.
size_t first_beyond(const std::vector<int64_t>& ends, int64_t value) {
  return static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), value) - ends.begin());
}

int64_t begin_of(const std::vector<int64_t>& ends, size_t index) {
  return index == 0 ? 0 : ends[index - 1];
}

}  // namespace

DocumentBlocks::DocumentBlocks(std::shared_ptr<const DocumentLengths> documents,
                               const Config& config)
    : documents_(std::move(documents)), config_(config) {
  if (config.block_documents < 1 || config.block_documents > kMostInBlock) {
    throw Error(ErrorKind::config, message("a block has between 1 and ", kMostInBlock,
                                           " documents, not ", config.block_documents));
  }
  const int64_t count = documents_->num_documents();
  std::vector<int64_t> lengths;
  for (int64_t first = 0; first < count; first += config.block_documents) {
    lengths.resize(static_cast<size_t>(std::min(config.block_documents, count - first)));
    documents_->lengths(first, lengths);
    // At most 2^16 of them: no sum overflows.
    const auto [shortest, longest] = std::minmax_element(lengths.begin(), lengths.end());
    if (*shortest < 0 || *longest > kMostLength) {
      throw Error(ErrorKind::config, "a document has more tokens than any file");
    }
    const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    if (tokens > kMostTokens - num_tokens_) {
      throw Error(ErrorKind::config, "documents have more tokens than any file");
    }
    tokens_.push_back(tokens);
    num_tokens_ += tokens;
  }
}

DocumentStream::DocumentStream(std::shared_ptr<const DocumentBlocks> blocks, int64_t kept_blocks)
    : blocks_(std::move(blocks)),
      epochs_(kKeptEpochs),
      kept_(static_cast<size_t>(std::max<int64_t>(kept_blocks, 1))) {}

void DocumentStream::locate(int64_t epoch, int64_t first, int64_t count,
                            std::vector<Piece>& out) const {
  const std::lock_guard lock(mutex_);
  const Epoch& turns = epoch_at(blocks_->config().is_shuffled ? epoch : 0);
  size_t turn = first_beyond(turns.ends, first);
  int64_t within = first - begin_of(turns.ends, turn);
  for (; count > 0; ++turn, within = 0) {
    const Block& block = block_at(turns, turn);
    const int64_t first_document = block.number * blocks_->config().block_documents;
    for (size_t at = first_beyond(block.ends, within); count > 0 && at < block.ends.size(); ++at) {
      const int64_t part = std::min(count, block.ends[at] - within);
      if (part == 0) continue;  // a document without tokens
      out.push_back(
          {first_document + block.documents[at], within - begin_of(block.ends, at), part});
      within += part;
      count -= part;
    }
  }
}

const DocumentStream::Epoch& DocumentStream::epoch_at(int64_t number) const {
  Epoch* oldest = &epochs_.front();
  for (Epoch& epoch : epochs_) {
    if (epoch.used < oldest->used) oldest = &epoch;
    if (epoch.number != number) continue;
    epoch.used = ++clock_;
    return epoch;
  }
  oldest->used = ++clock_;
  fill(*oldest, number);
  return *oldest;
}

// Blocks are asked for about in their turns, of which so many in a row have places of their own.
const DocumentStream::Block& DocumentStream::block_at(const Epoch& epoch, size_t turn) const {
  const uint64_t turns = static_cast<uint64_t>(epoch.number) * epoch.blocks.size() + turn;
  Block& block = kept_[turns % kept_.size()];
  const int64_t number = epoch.blocks[turn];
  if (block.number != number || block.epoch != epoch.number) fill(block, epoch.number, number);
  return block;
}

void DocumentStream::fill(Epoch& epoch, int64_t number) const {
  epoch.number = -1;
  const auto count = static_cast<size_t>(blocks_->num_blocks());
  epoch.blocks.resize(count);
  std::iota(epoch.blocks.begin(), epoch.blocks.end(), 0);
  const DocumentBlocks::Config& config = blocks_->config();
  if (config.is_shuffled) {
    shuffle(std::span(epoch.blocks), derive_key(config.seed, KeyPurpose::documents, number));
  }
  epoch.ends.resize(count);
  int64_t end = 0;
  for (size_t turn = 0; turn < count; ++turn) {
    end += blocks_->tokens_of(epoch.blocks[turn]);
    epoch.ends[turn] = end;
  }
  epoch.number = number;
}

void DocumentStream::fill(Block& block, int64_t epoch, int64_t number) const {
  block.number = -1;
  const DocumentBlocks::Config& config = blocks_->config();
  const int64_t first = number * config.block_documents;
  const int64_t left = blocks_->documents().num_documents() - first;
  const auto count = static_cast<size_t>(std::min(config.block_documents, left));
  block.documents.resize(count);
  std::iota(block.documents.begin(), block.documents.end(), uint16_t{0});
  if (config.is_shuffled) {
    shuffle(std::span(block.documents),
            derive_key(config.seed, {static_cast<uint64_t>(KeyPurpose::documents),
                                     static_cast<uint64_t>(epoch), static_cast<uint64_t>(number)}));
  }
  lengths_.resize(count);
  blocks_->documents().lengths(first, lengths_);
  block.ends.resize(count);
  int64_t end = 0;
  for (size_t at = 0; at < count; ++at) {
    end += lengths_[block.documents[at]];
    block.ends[at] = end;
  }
  // Else a token that the blocks promise would lie in none of them.
  if (end != blocks_->tokens_of(number)) {
    throw Error(ErrorKind::file_changed,
                message("the lengths of documents ", first, " to ", first + std::ssize(block.ends),
                        " add up to ", end, " tokens, and to ", blocks_->tokens_of(number),
                        " when the data set was made: the index of its documents was changed in "
                        "place; make the data set anew"));
  }
  block.epoch = epoch;
  block.number = number;
}

}  // namespace s3io
