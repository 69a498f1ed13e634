#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/buffers.h"
#include "format/documents.h"
#include "format/index_columns.h"
#include "format/token_form.h"
#include "reader/record_source.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

struct DocumentColumns {
  int64_t num_documents;
  py::buffer starts;
  py::buffer lengths;
  int64_t length_bytes;
  int64_t end;
};

std::shared_ptr<Documents> make_documents(
    const std::vector<DocumentColumns>& objects, int64_t token_bytes,
    const std::optional<std::shared_ptr<RecordOrder>>& selected) {
  constexpr int64_t kMost = int64_t{1} << 40;
  const std::shared_ptr<KeptBuffers> held = hold_buffers();
  std::vector<DocumentTable> tables;
  for (const DocumentColumns& one : objects) {
    if (one.num_documents < 0 || one.num_documents > kMost ||
        (one.length_bytes != 4 && one.length_bytes != 8)) {
      throw Error(ErrorKind::config, "lengths of documents have 4 or 8 bytes");
    }
    tables.push_back(
        {.num_documents = one.num_documents,
         .starts = kept_bytes(one.starts, one.num_documents * 8, *held),
         .lengths = kept_bytes(one.lengths, one.num_documents * one.length_bytes, *held),
         .has_wide_lengths = one.length_bytes == 8,
         .end = one.end});
  }
  const NoGil no_gil;
  return std::make_shared<Documents>(std::move(tables), token_bytes,
                                     selected ? selected->get() : nullptr, held);
}

// pybind11 wants them without const, but they have no other methods.
using BlocksHandle = std::shared_ptr<DocumentBlocks>;

BlocksHandle make_blocks(const std::shared_ptr<Documents>& documents, int64_t block_documents,
                         bool is_shuffled, uint64_t seed) {
  const NoGil no_gil;
  return std::make_shared<DocumentBlocks>(
      documents, DocumentBlocks::Config{
                     .block_documents = block_documents, .is_shuffled = is_shuffled, .seed = seed});
}

TokenRecords records_named(const std::string& name) {
  if (name == "windows") return TokenRecords::windows;
  if (name == "documents") return TokenRecords::documents;
  if (name == "padded") return TokenRecords::padded;
  throw Error(ErrorKind::config, message("there are no records of tokens named ", name));
}

std::shared_ptr<TokenForm> make_token_form(const Objects& objects,
                                           const std::vector<std::shared_ptr<Documents>>& documents,
                                           const std::vector<BlocksHandle>& blocks, Field token,
                                           const std::string& records, int64_t window,
                                           int64_t stride, bool with_documents, int64_t longest,
                                           int64_t kept_blocks, int64_t typical_bytes,
                                           int64_t alignment, bool with_record_numbers) {
  if (!blocks.empty() && blocks.size() != documents.size()) {
    throw Error(ErrorKind::config, "blocks are those of all documents, or of none");
  }
  std::vector<TokenPart> parts;
  for (size_t index = 0; index < documents.size(); ++index) {
    parts.push_back({documents[index], blocks.empty() ? nullptr : blocks[index]});
  }
  TokenForm::Layout layout{.token = std::move(token),
                           .records = records_named(records),
                           .window = window,
                           .stride = stride,
                           .with_documents = with_documents,
                           .longest = longest,
                           .kept_blocks = kept_blocks,
                           .typical_bytes = typical_bytes};
  return std::make_shared<TokenForm>(
      std::move(layout), std::move(parts), objects.paths,
      BatchForm::Options{.alignment = alignment, .with_record_numbers = with_record_numbers});
}

SequenceCheck check(const py::buffer& lengths, const py::buffer& offsets, int64_t token_bytes) {
  const std::shared_ptr<KeptBuffers> held = hold_buffers();
  const int64_t count = lengths.request().size;
  const std::byte* each = kept_bytes(lengths, count * 4, *held);
  const std::byte* places = kept_bytes(offsets, count * 8, *held);
  const NoGil no_gil;
  return check_sequences(each, places, count, token_bytes);
}

bool do_count_up(const py::buffer& numbers) {
  const std::shared_ptr<KeptBuffers> held = hold_buffers();
  const int64_t count = numbers.request().size;
  const std::byte* each = kept_bytes(numbers, count * 8, *held);
  const NoGil no_gil;
  return counts_up(each, count);
}

LengthSum sum(const py::buffer& lengths) {
  const std::shared_ptr<KeptBuffers> held = hold_buffers();
  const py::buffer_info info = lengths.request();
  const std::byte* each = kept_bytes(lengths, info.size * info.itemsize, *held);
  if (info.itemsize != 4 && info.itemsize != 8) {
    throw Error(ErrorKind::config, "lengths of documents have 4 or 8 bytes");
  }
  const NoGil no_gil;
  return sum_lengths(each, info.size, info.itemsize == 8);
}

void register_columns(py::module_& module) {
  py::class_<SequenceCheck>(module, "SequenceCheck", "See csrc/format/index_columns.h.")
      .def_readonly("too_long", &SequenceCheck::too_long)
      .def_readonly("displaced", &SequenceCheck::displaced)
      .def_readonly("end_bytes", &SequenceCheck::end_bytes)
      .def_readonly("is_endless", &SequenceCheck::is_endless);
  module.def("check_sequences", &check, py::kw_only(), py::arg("lengths"), py::arg("offsets"),
             py::arg("token_bytes"), "lengths: uint32 [n], tokens; offsets: uint64 [n], bytes.");
  module.def("counts_up", &do_count_up, py::arg("numbers"), "Whether uint64 [n] are 0, 1, 2, ...");
  py::class_<LengthSum>(module, "LengthSum")
      .def_readonly("total", &LengthSum::total)
      .def_readonly("longest", &LengthSum::longest);
  module.def("sum_lengths", &sum, py::arg("lengths"), "Of uint32 or uint64 [n].");
}

}  // namespace

void register_tokens(py::module_& module) {
  register_columns(module);
  py::class_<DocumentColumns>(module, "DocumentColumns")
      .def(py::init<int64_t, py::buffer, py::buffer, int64_t, int64_t>(), py::kw_only(),
           py::arg("num_documents"), py::arg("starts"), py::arg("lengths"), py::arg("length_bytes"),
           py::arg("end"),
           "Arrays of the n documents of one object, which are kept, and may lie at any address: "
           "starts uint64 [n], bytes from its start; lengths [n], tokens. No document reaches "
           "beyond byte `end`.");

  py::class_<Documents, std::shared_ptr<Documents>>(module, "Documents",
                                                    "Documents of tokens in objects.")
      .def(py::init(&make_documents), py::kw_only(), py::arg("objects"), py::arg("token_bytes"),
           py::arg("selected"), "selected: the documents of its first epoch, or None for all.");

  py::class_<DocumentBlocks, BlocksHandle>(module, "DocumentBlocks",
                                           "See csrc/order/document_stream.h.")
      .def(py::init(&make_blocks), py::kw_only(), py::arg("documents"), py::arg("block_documents"),
           py::arg("is_shuffled"), py::arg("seed"))
      .def_property_readonly("num_tokens", &DocumentBlocks::num_tokens);

  py::class_<TokenForm, BatchForm, std::shared_ptr<TokenForm>>(module, "TokenForm")
      .def(py::init(&make_token_form), py::kw_only(), py::arg("objects"), py::arg("documents"),
           py::arg("blocks"), py::arg("token"), py::arg("records"), py::arg("window"),
           py::arg("stride"), py::arg("with_documents"), py::arg("longest"), py::arg("kept_blocks"),
           py::arg("typical_bytes"), py::arg("alignment"), py::arg("with_record_numbers"));
  module.attr("NUMBERS_OF_TOKEN_PART") = TokenForm::kNumbersOfPart;
  module.attr("MOST_DOCUMENTS_IN_BLOCK") = DocumentBlocks::kMostInBlock;
}

}  // namespace s3io::bindings
