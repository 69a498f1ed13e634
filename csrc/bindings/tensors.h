// Buffers as tensors: the only file pair that sees torch.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "memory/release_gate.h"
#include "memory/slab_handover.h"
#include "reader/batch.h"
#include "store/file_store.h"

namespace s3io::bindings {

// A uint8 tensor [length] that views the object's bytes. The buffer is freed with its last view.
pybind11::object bytes_tensor(ObjectData data);

// The batch's tensors, which view the buffer: one where its only name is "", else a dict by name. A
// ragged one is a tuple (values, starts, lengths, shapes or None, (min_length, max_length,
// is_packed)).
// With record numbers, which are a tensor more than there are names: a tuple (that, int64 [B]). All
// tensors share one storage, and the buffer is freed with the last of them.
pybind11::object batch_tensors(Batch& batch, const std::vector<std::string>& names);

// What a consumer needs to make the same tensor over its own mapping: a slot handle, dtype, sizes
// and strides, as bytes that only the same build of this library understands. Nothing for a tensor
// that does not lie in an announced slab, or that is more than a view (gradients, conjugation).
std::optional<std::string> send_tensor(pybind11::handle tensor);
// The arena that such bytes are meant for; 0 where they make no sense.
uint64_t arena_of(const std::string& sent);
// What `send_tensor` wrote is not sent.
void take_back_tensor(const std::string& sent);
// The tensor. Throws Error(data) for bytes that make no sense or a handle that is stale.
pybind11::object receive_tensor(const std::string& sent, Consumer& consumer);

// Where a tensor's whole storage lies in memory that another process can map: the descriptor, which
// lives as long as the storage, offset and bytes. Nothing where it lies in other memory.
std::optional<std::tuple<int, int64_t, int64_t>> shared_storage(pybind11::handle tensor);
// A uint8 tensor [length] over memory that another process shares by `fd`, from `offset` on, and
// whether it is mapped (else it is a copy). The descriptor may be closed afterwards.
std::pair<pybind11::object, bool> shared_file_tensor(int fd, int64_t offset, int64_t length);

// A gate for memory that a CUDA device copies from: marks the calling thread's current stream. Null
// where this PyTorch has no CUDA.
std::shared_ptr<ReleaseGate> make_device_gate();

}  // namespace s3io::bindings
