#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/buffers.h"
#include "format/fixed_form.h"
#include "format/sample_form.h"
#include "format/sample_places.h"
#include "order/record_order.h"
#include "reader/record_source.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

std::shared_ptr<FixedForm> make_fixed_form(const Objects& objects,
                                           const std::vector<int64_t>& header_bytes,
                                           const std::vector<int64_t>& num_records,
                                           std::vector<Field> fields, int64_t record_bytes,
                                           int64_t record_stride, int64_t alignment,
                                           bool with_record_numbers) {
  if (header_bytes.size() != num_records.size() || objects.versions.size() != num_records.size()) {
    throw Error(ErrorKind::config, "one header and one number of records per object are needed");
  }
  std::vector<Shard> shards;
  for (size_t index = 0; index < num_records.size(); ++index) {
    shards.push_back({header_bytes[index], num_records[index]});
  }
  return std::make_shared<FixedForm>(
      ShardTable(std::move(shards)), RecordLayout{std::move(fields), record_bytes, record_stride},
      *objects.paths,
      BatchForm::Options{.alignment = alignment, .with_record_numbers = with_record_numbers});
}

struct TableColumns {
  int64_t num_samples;
  std::optional<py::buffer> first_samples;
  py::buffer ends;
  std::vector<std::optional<py::buffer>> starts;
  int64_t length_bytes;
  std::vector<py::buffer> lengths;
  std::vector<py::buffer> values;
  std::optional<py::buffer> crc32c;
};

SampleTable make_table(const TableColumns& columns, const SampleForm::Layout& layout,
                       const std::shared_ptr<KeptBuffers>& held) {
  const std::vector<RaggedField>& fields = layout.ragged;
  if (columns.lengths.size() != fields.size() || columns.values.size() != layout.in_table.size() ||
      (columns.length_bytes != 4 && columns.length_bytes != 8)) {
    throw Error(ErrorKind::config, "a table has lengths for each ragged field, of 4 or 8 bytes");
  }
  constexpr int64_t kMostSamples = int64_t{1} << 40;
  const int64_t count = columns.num_samples;
  if (count < 0 || count > kMostSamples) {
    throw Error(ErrorKind::config, message("a table cannot have ", count, " samples"));
  }
  SampleTable table{.num_samples = count,
                    .num_objects = columns.ends.request().size,
                    .has_wide_lengths = columns.length_bytes == 8,
                    .owner = held};
  const auto longs = [&](const py::buffer& array, int64_t wanted) {
    return static_cast<const uint64_t*>(kept_array(array, wanted, 8, *held));
  };
  table.ends = longs(columns.ends, table.num_objects);
  if (columns.first_samples) table.first_samples = longs(*columns.first_samples, table.num_objects);
  for (const std::optional<py::buffer>& starts : columns.starts) {
    table.starts.push_back(starts ? longs(*starts, count) : nullptr);
  }
  for (size_t index = 0; index < fields.size(); ++index) {
    table.lengths.push_back(kept_array(columns.lengths[index], count * fields[index].open_axes(),
                                       columns.length_bytes, *held));
  }
  for (size_t index = 0; index < layout.in_table.size(); ++index) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(count, layout.in_table[index].bytes(), &bytes)) {
      throw Error(ErrorKind::config, "a table cannot have so many values");
    }
    table.values.push_back(kept_bytes(columns.values[index], bytes, *held));
  }
  if (columns.crc32c) {
    table.crc32c = static_cast<const uint32_t*>(kept_array(*columns.crc32c, count, 4, *held));
  }
  return table;
}

std::shared_ptr<SampleForm> make_sample_form(
    const Objects& objects, const std::vector<TableColumns>& tables, std::vector<Field> fields,
    int64_t record_bytes, std::vector<TableField> in_table, std::vector<RaggedField> ragged,
    int64_t largest_sample_bytes, int64_t typical_bytes, bool realigns, int64_t alignment,
    bool with_record_numbers) {
  const std::shared_ptr<KeptBuffers> held = hold_buffers();
  std::vector<SampleTable> made;
  SampleForm::Layout layout{.record = {std::move(fields), record_bytes, record_bytes},
                            .in_table = std::move(in_table),
                            .ragged = std::move(ragged),
                            .largest_sample_bytes = largest_sample_bytes,
                            .typical_bytes = typical_bytes,
                            .realigns = realigns};
  for (const TableColumns& columns : tables) made.push_back(make_table(columns, layout, held));
  return std::make_shared<SampleForm>(
      std::move(layout), std::move(made), objects.paths,
      BatchForm::Options{.alignment = alignment, .with_record_numbers = with_record_numbers});
}

// What a buffer needs for batches of the order: of so many, evenly spread over the first epoch, or
// of as many epochs as have so many.
std::vector<int64_t> batch_sizes(const BatchForm& form, const RecordOrder& order,
                                 int64_t batch_records, int64_t num_batches) {
  const NoGil no_gil;
  const std::unique_ptr<BatchWork> work = form.make_work();
  const int64_t positions = order.num_positions();
  batch_records = std::clamp<int64_t>(batch_records, 1, std::max<int64_t>(positions, 1));
  const int64_t in_epoch = std::max<int64_t>(positions / batch_records, 1);
  const int64_t step = std::max<int64_t>(in_epoch / std::max<int64_t>(num_batches, 1), 1);
  std::vector<int64_t> records(static_cast<size_t>(std::min(batch_records, positions)));
  std::vector<int64_t> sizes;
  std::unique_ptr<EpochOrder> epoch;
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    const int64_t number = batch * step;
    if (number % in_epoch == 0 || epoch == nullptr) epoch = order.epoch(number / in_epoch);
    epoch->records(number % in_epoch * batch_records, records);
    try {
      sizes.push_back(work->place(records));
    } catch (const Error&) {
      continue;  // a wrong table is the error of whoever reads that batch
    }
  }
  return sizes;
}

}  // namespace

void register_forms(py::module_& module) {
  py::class_<Field>(module, "Field")
      .def(py::init([](std::string name, const std::string& type, const std::string& output,
                       bool swap_bytes, int64_t offset, std::vector<int64_t> shape) {
             return Field{.name = std::move(name),
                          .type = scalar_type_named(type),
                          .output = scalar_type_named(output),
                          .swap_bytes = swap_bytes,
                          .offset = offset,
                          .shape = std::move(shape)};
           }),
           py::kw_only(), py::arg("name"), py::arg("type"), py::arg("output"),
           py::arg("swap_bytes"), py::arg("offset"), py::arg("shape"));

  py::class_<RaggedField>(module, "RaggedField")
      .def(py::init([](std::string name, const std::string& type, bool swap_bytes,
                       std::vector<int64_t> shape, size_t piece) {
             return RaggedField{.name = std::move(name),
                                .type = scalar_type_named(type),
                                .swap_bytes = swap_bytes,
                                .shape = std::move(shape),
                                .piece = piece};
           }),
           py::kw_only(), py::arg("name"), py::arg("type"), py::arg("swap_bytes"), py::arg("shape"),
           py::arg("piece"), "shape: of one sample; -1: an axis of any length.");

  py::class_<TableField>(module, "TableField")
      .def(py::init([](std::string name, const std::string& type, std::vector<int64_t> shape) {
             return TableField{.name = std::move(name),
                               .type = scalar_type_named(type),
                               .shape = std::move(shape)};
           }),
           py::kw_only(), py::arg("name"), py::arg("type"), py::arg("shape"));

  py::class_<TableColumns>(module, "SampleTable")
      .def(py::init<int64_t, std::optional<py::buffer>, py::buffer,
                    std::vector<std::optional<py::buffer>>, int64_t, std::vector<py::buffer>,
                    std::vector<py::buffer>, std::optional<py::buffer>>(),
           py::kw_only(), py::arg("num_samples"), py::arg("first_samples"), py::arg("ends"),
           py::arg("starts"), py::arg("length_bytes"), py::arg("lengths"), py::arg("values"),
           py::arg("crc32c"),
           "Arrays of the n samples of successive objects, which are kept. Of each object: "
           "first_samples uint64 (None: there is one object, or one sample in each), ends uint64, "
           "beyond which no sample reaches. Of each piece of a sample: starts uint64 [n], None: 0. "
           "Of each ragged field: lengths [n, open axes]. Of each table field: values [n, *shape]. "
           "crc32c: uint32 [n] or None.");

  py::class_<SamplePlaces>(module, "SamplePlaces",
                           "Where samples go that are written one after the other.")
      .def(py::init([](std::vector<int64_t> blocks, int64_t most_padding_percent, int64_t alignment,
                       int64_t shard_bytes, int64_t index_bytes) {
             return SamplePlaces({.blocks = std::move(blocks),
                                  .most_padding_percent = most_padding_percent,
                                  .alignment = alignment,
                                  .shard_bytes = shard_bytes,
                                  .index_bytes = index_bytes});
           }),
           py::kw_only(), py::arg("blocks"), py::arg("most_padding_percent"), py::arg("alignment"),
           py::arg("shard_bytes"), py::arg("index_bytes"))
      .def(
          "add",
          [](SamplePlaces& places, const std::vector<int64_t>& sizes) { return places.add(sizes); },
          py::arg("sizes"), "The starts of those for which the shard has room.")
      .def("begin_shard", &SamplePlaces::begin_shard)
      .def_property_readonly("end", &SamplePlaces::end)
      .def_property_readonly("data_bytes", &SamplePlaces::data_bytes);

  py::class_<BatchForm, std::shared_ptr<BatchForm>>(module, "BatchForm")
      .def("most_bytes", &BatchForm::most_bytes, py::arg("count"),
           "Bytes of a buffer that no batch of so many records exceeds.");

  module.def("batch_sizes", &batch_sizes, py::kw_only(), py::arg("form"), py::arg("order"),
             py::arg("batch_records"), py::arg("num_batches"),
             "Bytes of a buffer that batches of the order need: of so many, evenly spread over the "
             "first epoch, or of as many epochs as have so many.");

  py::class_<FixedForm, BatchForm, std::shared_ptr<FixedForm>>(module, "FixedForm")
      .def(py::init(&make_fixed_form), py::kw_only(), py::arg("objects"), py::arg("header_bytes"),
           py::arg("num_records"), py::arg("fields"), py::arg("record_bytes"),
           py::arg("record_stride"), py::arg("alignment"), py::arg("with_record_numbers"));

  py::class_<SampleForm, BatchForm, std::shared_ptr<SampleForm>>(module, "SampleForm")
      .def(py::init(&make_sample_form), py::kw_only(), py::arg("objects"), py::arg("tables"),
           py::arg("fields"), py::arg("record_bytes"), py::arg("in_table"), py::arg("ragged"),
           py::arg("largest_sample_bytes"), py::arg("typical_bytes"), py::arg("realigns"),
           py::arg("alignment"), py::arg("with_record_numbers"));
}

}  // namespace s3io::bindings
