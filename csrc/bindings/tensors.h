// Buffers as tensors: the only file pair that sees torch.
#pragma once

#include <pybind11/pybind11.h>

#include "reader/batch.h"
#include "store/object_store.h"

namespace s3io::bindings {

// A uint8 tensor [length] that views the object's bytes. The buffer is freed with its last view.
pybind11::object bytes_tensor(ObjectData data);

// The batch's fields as tensors [B, ...] that view the buffer: a tensor for a plain layout, else a
// dict by field name. With record numbers: a tuple (fields, int64 [B]). All tensors share one
// storage, and the buffer is freed with the last of them.
pybind11::object batch_tensors(Batch& batch, const RecordLayout& layout);

}  // namespace s3io::bindings
