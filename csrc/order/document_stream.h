// Documents as one stream of tokens: which of them lies where in it, in every epoch.
//
// Blocks are runs of neighbouring documents. In an epoch the blocks come in an order of their own,
// and so do the documents of a block. The tokens of a block do not depend on the order within it:
// sums over blocks say at once in which block a token lies, and sums over that block's documents,
// which are made when it is asked for, in which document.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace s3io {

// Immutable; any thread.
class DocumentLengths {
 public:
  DocumentLengths() = default;
  DocumentLengths(const DocumentLengths&) = delete;
  DocumentLengths& operator=(const DocumentLengths&) = delete;
  virtual ~DocumentLengths() = default;

  virtual int64_t num_documents() const = 0;
  // Tokens of the documents from `first` on; at least 0.
  virtual void lengths(int64_t first, std::span<int64_t> out) const = 0;
};

// The blocks of some documents. Immutable; any thread.
class DocumentBlocks {
 public:
  static constexpr int64_t kMostInBlock = 65536;
  static constexpr int64_t kMostLength = int64_t{1} << 46;  // of a document, in tokens
  static constexpr int64_t kMostTokens = int64_t{1} << 60;

  struct Config {
    int64_t block_documents = 1;  // up to kMostInBlock; the last block has what remains
    bool is_shuffled = false;     // else documents come as they are numbered, in every epoch
    uint64_t seed = 0;
  };

  // Asks for the length of every document, once. Throws Error(config).
  DocumentBlocks(std::shared_ptr<const DocumentLengths> documents, const Config& config);

  const Config& config() const { return config_; }
  const DocumentLengths& documents() const { return *documents_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_blocks() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t tokens_of(int64_t block) const { return tokens_[static_cast<size_t>(block)]; }

 private:
  std::shared_ptr<const DocumentLengths> documents_;
  Config config_;
  std::vector<int64_t> tokens_;  // of each block
  int64_t num_tokens_ = 0;
};

// The stream. Keeps sums of epochs, and of blocks that come after each other. Any thread, but of
// one process: a child that is forked meanwhile makes its own.
class DocumentStream {
 public:
  struct Piece {
    int64_t document;
    int64_t offset;  // in tokens
    int64_t count;   // at least 1
  };

  // `kept_blocks`: at least 1.
  DocumentStream(std::shared_ptr<const DocumentBlocks> blocks, int64_t kept_blocks);

  // Appends where `count` tokens from `first` on lie, which must be in [0, num_tokens). Throws
  // Error(file_changed) where a block has other tokens than it had.
  void locate(int64_t epoch, int64_t first, int64_t count, std::vector<Piece>& out) const;

 private:
  struct Epoch {
    int64_t number = -1;
    uint64_t used = 0;
    std::vector<int64_t> blocks;  // in their order
    std::vector<int64_t> ends;    // tokens of all turns up to this one
  };
  struct Block {
    int64_t epoch = -1;
    int64_t number = -1;
    std::vector<uint16_t> documents;  // in their order, from the block's first one on
    std::vector<int64_t> ends;        // tokens of all documents up to this one
  };

  const Epoch& epoch_at(int64_t number) const;
  const Block& block_at(const Epoch& epoch, size_t turn) const;
  void fill(Epoch& epoch, int64_t number) const;
  void fill(Block& block, int64_t epoch, int64_t number) const;

  const std::shared_ptr<const DocumentBlocks> blocks_;
  mutable std::mutex mutex_;  // guards what follows
  mutable std::vector<Epoch> epochs_;
  mutable std::vector<Block> kept_;  // by the turns of all epochs
  mutable std::vector<int64_t> lengths_;
  mutable uint64_t clock_ = 0;
};

}  // namespace s3io
