// Room for the slabs of several producers in one sparse memory file, and the hand-over between
// them and the one consumer.
//
// The consumer (the main process) makes the arena; its file descriptor reaches the producers
// (worker processes) by fork or through a pipe. A producer claims a segment and makes its pool
// there; the consumer maps a segment when the first handle from it arrives, and keeps it mapped. So
// pages, their pins and the counters outlive any one producer.
//
//     | header, one huge page | segment 0: a slab | segment 1: a slab | ...
//
// A claim is an open-file-description lock on one byte of the file, which the kernel lets go
// however the producer ends. Whoever claims next finds the slots that the consumer still views, and
// frees all others. A segment whose producer was killed while it read rests for a while: others
// have room.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "memory/slab.h"

namespace s3io {

// Names the bytes [offset, offset + length) of a slot in a way that means the same to both sides.
struct SlotHandle {
  uint64_t arena = 0;
  uint32_t segment = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;
  int64_t offset = 0;
  int64_t length = 0;
};

// Counts up when this process maps a segment to consume from it, and when it first copies a batch
// out of one: what whoever unpickles batches should look at.
int64_t handover_events();
void count_handover_event();

class SlabArena {
 public:
  static constexpr int64_t kSegments = 256;

  // The consumer's side. `geometry` is the largest slab that a producer will want. Throws
  // Error(config), Error(out_of_memory).
  explicit SlabArena(const SlabGeometry& geometry);
  // A producer's side, over the descriptor and the id that the consumer sent. Throws Error(config),
  // Error(data), Error(out_of_memory).
  SlabArena(const SlabGeometry& geometry, UniqueFd fd, uint64_t id);

  uint64_t id() const { return id_; }
  int fd() const { return fd_.get(); }
  const SlabGeometry& geometry() const { return geometry_; }

  struct Claim {
    std::shared_ptr<Slab> slab;
    int64_t segment = 0;
  };
  // A free segment, `preferred` if possible, with `slots` slots (at most those of the geometry).
  // Nothing when all are claimed, or when the descriptor cannot be opened anew. Throws
  // Error(out_of_memory) when it cannot be mapped.
  std::optional<Claim> claim(int64_t preferred, int64_t slots,
                             Clock::time_point now = Clock::now());

  // The consumer's view of a segment; mapped once. Throws Error(out_of_memory).
  std::shared_ptr<Slab> attach(int64_t segment);
  // The segments that are mapped here.
  std::vector<std::shared_ptr<Slab>> attached() const;
  // The same without the slots: their words alone.
  std::unique_ptr<Slab> attach_words(int64_t segment) const;
  // Whether there is such a slot with such bytes.
  bool has(const SlotHandle& handle) const;
  // Reads a handle's bytes without mapping them. False when that fails.
  bool read(const SlotHandle& handle, std::byte* into) const;

  // Memory that all segments take by now.
  int64_t backed_bytes() const;
  // Producers that found no segment.
  int64_t refused_claims() const { return header_->refused_claims.load(); }

 private:
  struct Header {
    std::atomic<int64_t> refused_claims;
  };

  int64_t offset_of(int64_t segment) const;
  std::optional<Claim> try_claim(int64_t preferred, int64_t slots, Clock::time_point now) const;

  const SlabGeometry geometry_;
  const UniqueFd fd_;
  const SharedMapping header_memory_;
  Header* const header_;
  const uint64_t id_;
  mutable std::mutex mutex_;                     // guards what follows
  std::vector<std::shared_ptr<Slab>> attached_;  // by segment; null where none
};

}  // namespace s3io
