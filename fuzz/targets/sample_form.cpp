// Samples where any tables say they are: refused, or every one lies within its object and the
// buffer, no read writes over another one, and the values are the bytes that the tables name.
#include "format/sample_form.h"

#include <algorithm>

#include "base/align.h"
#include "engine/input.h"

namespace s3io::fuzz {
namespace {

constexpr int64_t kMostBuffer = 1 << 18;

std::byte content(int64_t object, int64_t offset) {
  const auto mixed =
      (static_cast<uint64_t>(offset) + static_cast<uint64_t>(object) * 977) * 2654435761u;
  return static_cast<std::byte>(mixed >> 16);
}

// Tables with the memory that they name.
struct Tables {
  explicit Tables(Input& input, const std::vector<RaggedField>& fields, size_t num_pieces) {
    const bool is_wide = input.flag();
    for (int64_t left = input.between(1, 3); left > 0; --left) {
      const int64_t count = input.between(0, 6);
      SampleTable& table = tables.emplace_back();
      table.num_samples = count;
      table.num_objects = input.flag() ? 1 : input.between(1, 6);
      objects += table.num_objects;
      if (input.flag()) table.first_samples = numbers<uint64_t>(input, table.num_objects, 1);
      table.ends = numbers<uint64_t>(input, table.num_objects, 1);
      table.has_wide_lengths = is_wide;
      for (size_t piece = 0; piece < num_pieces; ++piece) {
        table.starts.push_back(input.flag() ? nullptr : numbers<uint64_t>(input, count, 16));
      }
      for (const RaggedField& field : fields) {
        const int64_t lengths = count * field.open_axes();
        table.lengths.push_back(is_wide
                                    ? static_cast<const void*>(numbers<uint64_t>(input, lengths, 1))
                                    : numbers<uint32_t>(input, lengths, 1));
      }
    }
  }

  template <typename Number>
  const Number* numbers(Input& input, int64_t count, int64_t step) {
    auto column = std::make_shared<std::vector<Number>>(static_cast<size_t>(count));
    for (Number& one : *column) {
      const auto number = static_cast<uint64_t>(input.number());
      one = static_cast<Number>(input.flag() ? number * static_cast<uint64_t>(step) : number);
    }
    memory.push_back(column);
    return column->data();
  }

  std::vector<SampleTable> tables;
  int64_t objects = 0;
  std::vector<std::shared_ptr<void>> memory;
};

RaggedField any_field(Input& input, int64_t number, size_t piece) {
  RaggedField field{.name = std::to_string(number), .piece = piece};
  field.type = input.flag() ? ScalarType::uint8
                            : (input.flag() ? ScalarType::uint16 : ScalarType::complex128);
  for (int64_t axis = input.between(0, 2); axis > 0; --axis) {
    field.shape.push_back(input.flag() ? -1 : input.between(1, 5));
  }
  field.shape.insert(field.shape.begin(), -1);
  return field;
}

// Reads every run as a direct read does: whole blocks.
void land(const BatchWork& work, int64_t alignment, std::byte* landing,
          std::span<std::byte> buffer) {
  std::vector<bool> is_written(buffer.size());
  for (const uint32_t index : work.order()) {
    const Run& run = work.runs()[index];
    require(run.length >= 0 && run.position >= 0);
    require(((run.offset - run.position) & (alignment - 1)) == 0);
    const int64_t begin = align_down(run.position, alignment);
    const int64_t end = align_up(run.position + run.length, alignment);
    for (int64_t at = begin; at < end; ++at) {
      const auto place = static_cast<size_t>(landing + at - buffer.data());
      require(place < buffer.size() && !is_written[place]);
      is_written[place] = true;
      buffer[place] = content(run.object, run.offset + at - run.position);
    }
  }
}

// The first bytes of each sample's first field, which begins where its first piece does.
void check_values(const BatchView& view, const std::vector<Extent>& extents, size_t num_pieces) {
  const RaggedView& ragged = view.ragged.front();
  const TensorView& values = view.tensors[ragged.first];
  const auto* starts = reinterpret_cast<const int64_t*>(view.tensors[ragged.first + 1].data);
  const auto* lengths = reinterpret_cast<const int64_t*>(view.tensors[ragged.first + 2].data);
  for (size_t row = 0; row < extents.size() / num_pieces; ++row) {
    require(starts[row] >= 0 && lengths[row] >= 0);
    require(lengths[row] <= values.sizes[0] - starts[row]);
    require(lengths[row] >= ragged.min_length && lengths[row] <= ragged.max_length);
    const int64_t bytes = lengths[row] * size_bytes(values.type);
    const std::byte* data = values.data + starts[row] * size_bytes(values.type);
    for (int64_t byte = 0; byte < bytes; ++byte) {
      const Extent& extent = extents[row * num_pieces];
      require(data[byte] == content(extent.object, extent.offset + byte));
    }
  }
}

void read(Input& input) {
  SampleForm::Layout layout;
  size_t piece = 0;
  for (int64_t number = input.between(1, 3); number > 0; --number) {
    layout.ragged.push_back(any_field(input, number, piece));
    piece += input.flag() ? 1 : 0;
  }
  const size_t num_pieces = layout.ragged.back().piece + 1;
  layout.largest_sample_bytes = input.number();
  layout.typical_bytes = 1;
  layout.realigns = layout.largest_sample_bytes % 2 != 0;
  const int64_t alignment = int64_t{1} << input.between(0, 12);
  try {
    const Tables tables(input, layout.ragged, num_pieces);
    const std::vector<std::string> names(static_cast<size_t>(tables.objects), "object");
    const SampleForm form(layout, tables.tables, std::make_shared<ObjectNames>(names),
                          {.alignment = alignment, .with_record_numbers = input.flag()});
    if (form.num_records() == 0) return;
    std::vector<int64_t> records;
    do {
      records.push_back(input.between(0, form.num_records() - 1));
    } while (records.size() < 16 && input.flag());
    std::vector<Extent> extents;
    form.locate(records, extents);
    const auto work = form.make_work();
    const int64_t needed = work->place(records);
    require(needed >= 0 && needed <= form.most_bytes(std::ssize(records)));
    if (needed > kMostBuffer) return;
    std::vector<std::byte> memory(static_cast<size_t>(needed + alignment + kFieldAlignment));
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    const auto begin = static_cast<size_t>(
        align_up(static_cast<int64_t>(address), std::max(alignment, kFieldAlignment)) -
        static_cast<int64_t>(address));
    const std::span<std::byte> buffer(memory.data() + begin, static_cast<size_t>(needed));
    land(*work, alignment, work->land_in(buffer), buffer);
    BatchView view;
    work->finish(view);
    check_values(view, extents, num_pieces);
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::config || error.kind() == ErrorKind::data);
  }
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
