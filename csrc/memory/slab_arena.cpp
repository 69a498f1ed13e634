#include "memory/slab_arena.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/align.h"
#include "base/error.h"

namespace s3io {
namespace {

std::atomic<int64_t> events{0};

uint64_t random_id() {
  uint64_t id = 0;
  if (::getrandom(&id, sizeof(id), 0) != static_cast<ssize_t>(sizeof(id))) {
    id = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  }
  return id;
}

bool lock_byte(int fd, int64_t byte) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

}  // namespace

int64_t handover_events() { return events.load(std::memory_order_relaxed); }
void count_handover_event() { events.fetch_add(1, std::memory_order_relaxed); }

SlabArena::SlabArena(const SlabGeometry& geometry)
    : geometry_((geometry.check(), geometry)),
      fd_(make_memory_file(kHugePageBytes + kSegments * geometry.total_bytes())),
      header_memory_(fd_.get(), 0, kHugePageBytes, sizeof(Header)),
      header_(reinterpret_cast<Header*>(header_memory_.data())),
      id_(random_id()),
      attached_(kSegments) {}

SlabArena::SlabArena(const SlabGeometry& geometry, UniqueFd fd, uint64_t id)
    : geometry_((geometry.check(), geometry)),
      fd_(std::move(fd)),
      header_memory_(fd_.get(), 0, kHugePageBytes, sizeof(Header)),
      header_(reinterpret_cast<Header*>(header_memory_.data())),
      id_(id),
      attached_(kSegments) {}

int64_t SlabArena::offset_of(int64_t segment) const {
  return kHugePageBytes + segment * geometry_.total_bytes();
}

std::optional<SlabArena::Claim> SlabArena::claim(int64_t preferred, int64_t slots,
                                                 Clock::time_point now) {
  std::optional<Claim> claim = try_claim(preferred, slots, now);
  if (!claim) header_->refused_claims.fetch_add(1, std::memory_order_relaxed);
  return claim;
}

std::optional<SlabArena::Claim> SlabArena::try_claim(int64_t preferred, int64_t slots,
                                                     Clock::time_point now) const {
  // A lock belongs to an open file description, and the inherited one is everybody's.
  const std::string path = message("/proc/self/fd/", fd_.get());
  UniqueFd own(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!own.valid()) return std::nullopt;
  for (int64_t tried = 0; tried < kSegments; ++tried) {
    const int64_t segment = (preferred + tried) % kSegments;
    if (!lock_byte(own.get(), segment)) continue;
    SlabGeometry geometry = geometry_;
    geometry.slots = std::clamp<int64_t>(slots, 1, geometry_.slots);
    const int file = own.get();
    auto slab = std::make_shared<Slab>(geometry, file, offset_of(segment), std::move(own));
    if (!slab->reads_may_be_in_flight(now) && slab->reclaim() < geometry.slots) {
      return Claim{std::move(slab), segment};
    }
    // Not yet, or the consumer views all of it: another segment has room.
    own = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!own.valid()) return std::nullopt;
  }
  return std::nullopt;
}

std::shared_ptr<Slab> SlabArena::attach(int64_t segment) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Slab>& slab = attached_[static_cast<size_t>(segment)];
  if (slab == nullptr) {
    slab = std::make_shared<Slab>(geometry_, fd_.get(), offset_of(segment));
    count_handover_event();
  }
  return slab;
}

std::unique_ptr<Slab> SlabArena::attach_words(int64_t segment) const {
  SlabGeometry words_only = geometry_;
  words_only.slots = 0;
  return std::make_unique<Slab>(words_only, fd_.get(), offset_of(segment));
}

std::vector<std::shared_ptr<Slab>> SlabArena::attached() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Slab>> slabs;
  std::copy_if(attached_.begin(), attached_.end(), std::back_inserter(slabs),
               [](const auto& slab) { return slab != nullptr; });
  return slabs;
}

int64_t SlabArena::backed_bytes() const {
  constexpr int64_t kBlockBytes = 512;  // of st_blocks, whatever the file system
  struct stat status {};
  return ::fstat(fd_.get(), &status) == 0 ? status.st_blocks * kBlockBytes : 0;
}

bool SlabArena::has(const SlotHandle& handle) const {
  return handle.segment < kSegments && handle.slot < geometry_.slots && handle.offset >= 0 &&
         handle.length >= 0 && handle.offset <= geometry_.slot_bytes &&
         handle.length <= geometry_.slot_bytes - handle.offset;
}

bool SlabArena::read(const SlotHandle& handle, std::byte* into) const {
  int64_t position = offset_of(handle.segment) + kHugePageBytes +
                     int64_t{handle.slot} * geometry_.stride_bytes() + handle.offset;
  int64_t left = handle.length;
  while (left > 0) {
    const ssize_t count = ::pread(fd_.get(), into, static_cast<size_t>(left), position);
    if (count <= 0) return false;
    into += count;
    position += count;
    left -= count;
  }
  return true;
}

}  // namespace s3io
