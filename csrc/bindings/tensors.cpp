#include "bindings/tensors.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/Storage.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/utils/pybind.h>

#include <array>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/align.h"
#include "bindings/bindings.h"
#include "memory/shared_file.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

c10::ScalarType torch_type(ScalarType type) {
  switch (type) {
    case ScalarType::boolean:
      return c10::ScalarType::Bool;
    case ScalarType::uint8:
      return c10::ScalarType::Byte;
    case ScalarType::int8:
      return c10::ScalarType::Char;
    case ScalarType::uint16:
      return c10::ScalarType::UInt16;
    case ScalarType::int16:
      return c10::ScalarType::Short;
    case ScalarType::uint32:
      return c10::ScalarType::UInt32;
    case ScalarType::int32:
      return c10::ScalarType::Int;
    case ScalarType::uint64:
      return c10::ScalarType::UInt64;
    case ScalarType::int64:
      return c10::ScalarType::Long;
    case ScalarType::float16:
      return c10::ScalarType::Half;
    case ScalarType::bfloat16:
      return c10::ScalarType::BFloat16;
    case ScalarType::float32:
      return c10::ScalarType::Float;
    case ScalarType::float64:
      return c10::ScalarType::Double;
    case ScalarType::complex64:
      return c10::ScalarType::ComplexFloat;
    case ScalarType::complex128:
      return c10::ScalarType::ComplexDouble;
    case ScalarType::float8_e4m3fn:
      return c10::ScalarType::Float8_e4m3fn;
    case ScalarType::float8_e5m2:
      return c10::ScalarType::Float8_e5m2;
    case ScalarType::float8_e4m3fnuz:
      return c10::ScalarType::Float8_e4m3fnuz;
    case ScalarType::float8_e5m2fnuz:
      return c10::ScalarType::Float8_e5m2fnuz;
  }
  return c10::ScalarType::Undefined;
}

// A storage over [begin, end) that owns what it views. It begins a little earlier where that makes
// offsets of tensors, which torch counts in elements, whole numbers; buffers begin at such an
// address.
struct SharedStorage {
  SharedStorage(AlignedBuf buffer, std::byte* begin, const std::byte* end)
      : SharedStorage(buffer.detach(), &AlignedBuf::free_detached, begin, end) {}
  SharedStorage(void* owner, c10::DeleterFnPtr free, std::byte* begin, const std::byte* end)
      : base(begin - (reinterpret_cast<uintptr_t>(begin) % kCacheLineBytes)),
        storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(end - base),
                c10::DataPtr(base, owner, free, c10::kCPU),
                /*allocator=*/nullptr, /*resizable=*/false) {}

  at::Tensor view(const std::byte* data, c10::ScalarType type, at::IntArrayRef sizes,
                  at::IntArrayRef strides) const {
    at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
        c10::scalarTypeToTypeMeta(type));
    const auto offset = (data - base) / static_cast<int64_t>(c10::elementSize(type));
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
    return tensor;
  }
  at::Tensor view(const std::byte* data, ScalarType type, at::IntArrayRef sizes,
                  at::IntArrayRef strides) const {
    return view(data, torch_type(type), sizes, strides);
  }

  std::byte* base;
  c10::Storage storage;
};

// What `send_tensor` writes, followed by the sizes and then the strides, int64 each.
struct SentTensor {
  static constexpr uint32_t kMagic = 0x53334f31;

  uint32_t magic = kMagic;
  uint8_t scalar_type = 0;
  uint8_t dimensions = 0;
  uint16_t unused = 0;
  SlotHandle slot;
};
static_assert(std::is_trivially_copyable_v<SentTensor>);

constexpr size_t kMostDimensions = 64;

// The bytes from the first element to the end of the last one; -1 where that overflows.
int64_t extent_bytes(at::IntArrayRef sizes, at::IntArrayRef strides, int64_t element_bytes) {
  int64_t last = 0;
  for (size_t dimension = 0; dimension < sizes.size(); ++dimension) {
    if (sizes[dimension] < 1 || strides[dimension] < 0) return -1;
    int64_t reach = 0;
    if (__builtin_mul_overflow(sizes[dimension] - 1, strides[dimension], &reach)) return -1;
    if (__builtin_add_overflow(last, reach, &last)) return -1;
  }
  int64_t bytes = 0;
  if (__builtin_add_overflow(last, 1, &last)) return -1;
  return __builtin_mul_overflow(last, element_bytes, &bytes) ? -1 : bytes;
}

bool is_plain(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.layout() == at::kStrided && !tensor.requires_grad() &&
         !tensor.is_conj() && !tensor.is_neg() && !tensor.is_quantized() && tensor.numel() > 0 &&
         tensor.sizes().size() <= kMostDimensions;
}

std::optional<SentTensor> header_of(const std::string& sent) {
  SentTensor header;
  if (sent.size() < sizeof(header)) return std::nullopt;
  std::memcpy(&header, sent.data(), sizeof(header));
  const size_t wanted = sizeof(header) + size_t{header.dimensions} * 2 * sizeof(int64_t);
  if (header.magic != SentTensor::kMagic || header.dimensions > kMostDimensions ||
      sent.size() != wanted) {
    return std::nullopt;
  }
  const auto type = static_cast<c10::ScalarType>(header.scalar_type);
  if (header.scalar_type >= static_cast<uint8_t>(c10::ScalarType::Undefined) ||
      c10::isQIntType(type)) {
    return std::nullopt;
  }
  return header;
}

// A point in the work of the current stream of a thread.
class DeviceMark final : public ReleaseGate::Mark {
 public:
  explicit DeviceMark(c10::DeviceType type) : event_(type) {}
  void record(const c10::Stream& stream) { event_.record(stream); }
  bool passed() noexcept override {
    try {
      return event_.query();
    } catch (const std::exception&) {
      return true;  // the device failed, for good: it reads nothing any more
    }
  }

 private:
  c10::Event event_;
};

bool is_idle(const c10::impl::VirtualGuardImpl& device, const c10::Stream& stream) noexcept {
  try {
    return device.queryStream(stream);
  } catch (const std::exception&) {
    return false;  // it does not say: an event will
  }
}

class DeviceGate final : public ReleaseGate {
 public:
  std::unique_ptr<Mark> mark() noexcept override {
    try {
      const c10::impl::VirtualGuardImpl device(kType);
      const c10::Stream stream = device.getStream(device.getDevice());
      if (is_idle(device, stream)) return nullptr;
      auto mark = std::make_unique<DeviceMark>(kType);
      mark->record(stream);
      return mark;
    } catch (const std::exception&) {
      return nullptr;  // nothing to be had: the device is gone
    }
  }

 private:
  static constexpr c10::DeviceType kType = c10::DeviceType::CUDA;
};

}  // namespace

py::object bytes_tensor(ObjectData data) {
  std::byte* begin = data.begin;
  const std::array<int64_t, 1> size{data.length};
  const std::array<int64_t, 1> stride{1};
  const SharedStorage storage(std::move(data.buffer), begin, begin + data.length);
  return py::cast(storage.view(begin, ScalarType::uint8, size, stride));
}

py::object batch_tensors(Batch& batch, const std::vector<std::string>& names) {
  const BatchView& view = batch.view;
  const SharedStorage storage(std::move(batch.buffer), view.begin, view.end);
  const auto tensor = [&](size_t index) {
    const TensorView& one = view.tensors[index];
    return py::cast(storage.view(one.data, one.type, one.sizes, one.strides));
  };
  size_t taken = names.size() - view.ragged.size();  // tensors so far
  py::object fields;
  if (names.size() == 1 && names[0].empty()) {
    fields = tensor(0);
  } else {
    py::dict by_name;
    for (size_t index = 0; index < taken; ++index) by_name[py::str(names[index])] = tensor(index);
    const std::span ragged_names(names.begin() + static_cast<std::ptrdiff_t>(taken), names.end());
    for (size_t index = 0; index < view.ragged.size(); ++index) {
      const RaggedView& one = view.ragged[index];
      const py::object shapes = one.has_shapes ? tensor(one.first + 3) : py::none();
      by_name[py::str(ragged_names[index])] =
          py::make_tuple(tensor(one.first), tensor(one.first + 1), tensor(one.first + 2), shapes,
                         py::make_tuple(one.min_length, one.max_length, one.is_packed));
      taken = one.first + (one.has_shapes ? 4 : 3);
    }
    fields = std::move(by_name);
  }
  if (view.tensors.size() == taken) return fields;
  return py::make_tuple(fields, tensor(taken));
}

std::optional<std::string> send_tensor(py::handle object) {
  const auto tensor = py::cast<at::Tensor>(object);
  if (!is_plain(tensor)) return std::nullopt;
  const int64_t length =
      extent_bytes(tensor.sizes(), tensor.strides(), static_cast<int64_t>(tensor.element_size()));
  const auto* begin = static_cast<const std::byte*>(tensor.const_data_ptr());
  const std::optional<SlotHandle> slot = length < 0 ? std::nullopt : send(begin, length);
  if (!slot) return std::nullopt;
  SentTensor header;
  header.scalar_type = static_cast<uint8_t>(tensor.scalar_type());
  header.dimensions = static_cast<uint8_t>(tensor.dim());
  header.slot = *slot;
  const size_t extents = tensor.sizes().size() * sizeof(int64_t);
  std::string sent(sizeof(header) + 2 * extents, '\0');
  std::memcpy(sent.data(), &header, sizeof(header));
  std::memcpy(sent.data() + sizeof(header), tensor.sizes().data(), extents);
  std::memcpy(sent.data() + sizeof(header) + extents, tensor.strides().data(), extents);
  return sent;
}

uint64_t arena_of(const std::string& sent) {
  const std::optional<SentTensor> header = header_of(sent);
  return header ? header->slot.arena : 0;
}

void take_back_tensor(const std::string& sent) {
  if (const std::optional<SentTensor> header = header_of(sent)) take_back(header->slot);
}

py::object receive_tensor(const std::string& sent, Consumer& consumer) {
  const std::optional<SentTensor> header = header_of(sent);
  if (!header) throw Error(ErrorKind::data, "this is no tensor from a worker");
  std::vector<int64_t> sizes(header->dimensions);
  std::vector<int64_t> strides(header->dimensions);
  const size_t extents = sizes.size() * sizeof(int64_t);
  std::memcpy(sizes.data(), sent.data() + sizeof(*header), extents);
  std::memcpy(strides.data(), sent.data() + sizeof(*header) + extents, extents);
  const auto type = static_cast<c10::ScalarType>(header->scalar_type);
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(type));
  if (extent_bytes(sizes, strides, element_bytes) != header->slot.length ||
      header->slot.offset % element_bytes != 0) {
    throw Error(ErrorKind::data, "a tensor from a worker does not fit its bytes");
  }
  const Received received = consumer.receive(header->slot);
  const SharedStorage storage(received.owner, &free_received, received.data,
                              received.data + header->slot.length);
  return py::cast(storage.view(received.data, type, sizes, strides));
}

std::optional<std::tuple<int, int64_t, int64_t>> shared_storage(py::handle object) {
  const auto tensor = py::cast<at::Tensor>(object);
  if (!tensor.has_storage()) return std::nullopt;
  const c10::DataPtr& held = tensor.storage().data_ptr();
  if (held.get_deleter() != &AlignedBuf::free_detached) return std::nullopt;
  const SharedBlock* block = AlignedBuf::shared_by(held.get_context());
  if (block == nullptr) return std::nullopt;
  const int64_t offset = static_cast<const std::byte*>(held.get()) - block->data();
  return std::tuple(block->fd(), offset, static_cast<int64_t>(tensor.storage().nbytes()));
}

std::pair<py::object, bool> shared_file_tensor(int fd, int64_t offset, int64_t length) {
  SharedFile file;
  {
    const NoGil no_gil;
    file = open_shared_file(fd, offset, length);
  }
  const std::array<int64_t, 1> size{length};
  const std::array<int64_t, 1> stride{1};
  const SharedStorage storage(file.owner, &free_shared_file, file.data, file.data + length);
  return {py::cast(storage.view(file.data, ScalarType::uint8, size, stride)), file.is_mapped};
}

std::shared_ptr<ReleaseGate> make_device_gate() {
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) return nullptr;
  return std::make_shared<DeviceGate>();
}

}  // namespace s3io::bindings
