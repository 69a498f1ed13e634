// Keeps memory that a device may still be copying from out of circulation until the copy is done.
//
// After `x.to("cuda", non_blocking=True)` the last view of a slot may die while the copy is still
// queued. A ReleaseGate marks the point in the device's work that must be reached first; a thread
// of its own watches these marks and then frees the slot. Freeing cannot wait for the training loop
// to come by: it may be blocked, waiting for a batch that needs that very slot.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace s3io {

class ReleaseGate {
 public:
  // A point in the work of a device.
  class Mark {
   public:
    virtual ~Mark() = default;
    // Whether the device is past it. Called again and again by one thread.
    virtual bool passed() noexcept = 0;
  };

  virtual ~ReleaseGate() = default;
  // Behind all work that the calling thread has submitted to its current stream; null when that is
  // done.
  virtual std::unique_ptr<Mark> mark() noexcept = 0;
};

// Runs `release` once the mark is passed, in a thread that lives while there is such work. A forked
// child has none of its parent's. Never throws: where no thread can be started, the caller waits.
void release_after(std::unique_ptr<ReleaseGate::Mark> mark, std::function<void()> release) noexcept;

// How many releases wait now, and how many waited so far, in this process.
int64_t pending_releases();
int64_t deferred_releases();

}  // namespace s3io
