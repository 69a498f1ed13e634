#include <fcntl.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/align.h"
#include "bindings/bindings.h"
#include "bindings/tensors.h"
#include "memory/buffer_pool.h"
#include "memory/release_gate.h"
#include "memory/shared_file.h"
#include "memory/slab_arena.h"
#include "memory/slab_handover.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// The arenas of this process, by id, as long as they live.
class Consumers {
 public:
  void add(uint64_t arena, const std::shared_ptr<Consumer>& consumer) {
    const std::lock_guard lock(mutex_);
    std::erase_if(by_arena_, [](const auto& one) { return one.second.expired(); });
    by_arena_[arena] = consumer;
  }
  std::shared_ptr<Consumer> find(uint64_t arena) {
    const std::lock_guard lock(mutex_);
    const auto found = by_arena_.find(arena);
    return found == by_arena_.end() ? nullptr : found->second.lock();
  }

 private:
  std::mutex mutex_;
  std::map<uint64_t, std::weak_ptr<Consumer>> by_arena_;
};

Consumers& consumers() {
  static auto& all = *new Consumers;
  return all;
}

class Arena {
 public:
  explicit Arena(const SlabGeometry& geometry)
      : consumer_(std::make_shared<Consumer>(std::make_shared<SlabArena>(geometry))) {
    consumers().add(arena().id(), consumer_);
  }
  Arena(const SlabGeometry& geometry, UniqueFd fd, uint64_t id)
      : consumer_(
            std::make_shared<Consumer>(std::make_shared<SlabArena>(geometry, std::move(fd), id))) {}

  SlabArena& arena() const { return *consumer_->arena(); }

  std::optional<std::shared_ptr<BufferPool>> claim(int64_t preferred, int64_t capacity) {
    std::optional<SlabArena::Claim> claim;
    {
      const NoGil no_gil;
      claim = arena().claim(preferred, capacity);
    }
    if (!claim) return std::nullopt;
    announce(arena().id(), claim->segment, claim->slab);
    const SlabGeometry& geometry = arena().geometry();
    return std::make_shared<BufferPool>(
        BufferPoolConfig{geometry.slots, geometry.slot_bytes, geometry.alignment}, claim->slab);
  }

  // (address, bytes) of the slots of every segment that is mapped here, backed by memory.
  std::vector<std::pair<uintptr_t, size_t>> prepared_segments() {
    std::vector<std::pair<uintptr_t, size_t>> segments;
    const NoGil no_gil;
    for (const std::shared_ptr<Slab>& slab : arena().attached()) {
      const int64_t slots = slab->slots_in_use();
      for (int64_t slot = 0; slot < slots; ++slot) slab->prepare(slot, slab->slot_bytes());
      const std::span<std::byte> memory = slab->memory(slots);
      segments.emplace_back(reinterpret_cast<uintptr_t>(memory.data()), memory.size());
    }
    return segments;
  }

  bool guard_device_copies() {
    std::shared_ptr<ReleaseGate> gate = make_device_gate();
    const bool there = gate != nullptr;
    if (there) consumer_->set_gate(std::move(gate));
    return there;
  }

  StatsDict stats() const {
    const HandoverCounters& counters = consumer_->counters();
    StatsDict dict;
    dict["received_tensors"] = counters.tensors.load();
    dict["received_bytes"] = counters.bytes.load();
    dict["held_out_tensors"] = counters.copied_tensors.load();
    dict["held_out_bytes"] = counters.copied_bytes.load();
    dict["unmapped_tensors"] = counters.unmapped_tensors.load();
    dict["stale_tensors"] = counters.stale_handles.load();
    dict["refused_workers"] = arena().refused_claims();
    int64_t held = 0;
    for (const std::shared_ptr<Slab>& slab : arena().attached()) held += slab->received_slots();
    dict["held_buffers"] = held;
    return dict;
  }

 private:
  std::shared_ptr<Consumer> consumer_;
};

py::object receive(const py::bytes& sent) {
  const std::string text = sent;
  const std::shared_ptr<Consumer> consumer = consumers().find(arena_of(text));
  if (consumer == nullptr) {
    throw Error(ErrorKind::data,
                "a batch from a worker is not for this process, or its data set is gone; keep the "
                "data set while its batches are in use, and send copies (.clone()) elsewhere");
  }
  return receive_tensor(text, *consumer);
}

py::object send_bytes(py::handle tensor) {
  const std::optional<std::string> sent = send_tensor(tensor);
  if (!sent) return py::none();
  return py::bytes(*sent);
}

}  // namespace

void register_handover(py::module_& module) {
  py::class_<Arena>(module, "Arena")
      .def(py::init([](int64_t capacity, int64_t buffer_size, int64_t alignment) {
             return std::make_unique<Arena>(SlabGeometry{capacity, buffer_size, alignment});
           }),
           py::kw_only(), py::arg("capacity"), py::arg("buffer_size"), py::arg("alignment"))
      .def_static(
          "adopt",
          [](int fd, uint64_t id, int64_t capacity, int64_t buffer_size, int64_t alignment) {
            ::fcntl(fd, F_SETFD, FD_CLOEXEC);
            return std::make_unique<Arena>(SlabGeometry{capacity, buffer_size, alignment},
                                           UniqueFd(fd), id);
          },
          py::kw_only(), py::arg("fd"), py::arg("id"), py::arg("capacity"), py::arg("buffer_size"),
          py::arg("alignment"), "The arena of another process; takes the descriptor over.")
      .def_property_readonly("id", [](const Arena& self) { return self.arena().id(); })
      .def_property_readonly("fd", [](const Arena& self) { return self.arena().fd(); })
      .def_property_readonly("backed_bytes",
                             [](const Arena& self) { return self.arena().backed_bytes(); })
      .def("claim", &Arena::claim, py::kw_only(), py::arg("preferred"), py::arg("capacity"))
      .def("prepared_segments", &Arena::prepared_segments)
      .def("guard_device_copies", &Arena::guard_device_copies)
      .def("stats", &Arena::stats);

  module.def("send_tensor", &send_bytes, py::arg("tensor"),
             "Bytes from which the consuming process makes the same tensor, or None.");
  module.def(
      "take_back_tensor", [](const py::bytes& sent) { take_back_tensor(sent); }, py::arg("sent"),
      "For bytes of send_tensor that did not leave this process.");
  module.def("receive_tensor", &receive, py::arg("sent"));
  module.def("shared_storage", &shared_storage, py::arg("tensor"),
             "(fd, offset, bytes) of a tensor's storage, where another process can map it, or "
             "None.");
  module.def("open_shared", &shared_file_tensor, py::kw_only(), py::arg("fd"), py::arg("offset"),
             py::arg("length"),
             "A uint8 tensor over memory that another process shares, and whether it is mapped "
             "(else it is a copy).");
  module.def("mapped_files", &mapped_files, "How many such tensors are mapped now.");
  module.def("handover_events", &handover_events,
             "Counts up when a segment is mapped, and when the first batch is copied out.");
  module.def("pending_releases", &pending_releases);
  module.def("deferred_releases", &deferred_releases);
}

}  // namespace s3io::bindings
