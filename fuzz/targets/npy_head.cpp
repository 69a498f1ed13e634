// Headers of .npy files, of any bytes: what is taken is what numpy writes, byte by byte.
#include "format/npy_head.h"

#include "engine/input.h"

namespace s3io::fuzz {
namespace {

std::string written(const NpyHead& head) {
  std::string text =
      "{'descr': '" + std::string(head.type) + "', 'fortran_order': False, 'shape': (";
  for (size_t axis = 0; axis < head.axes; ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(head.shape[axis]);
  }
  return text + (head.axes == 1 ? ",), }" : "), }");
}

void read(Input& input) {
  const std::string data = input.rest();
  const auto head = parse_npy_head(std::as_bytes(std::span(data)));
  if (!head) return;
  const auto bytes = static_cast<size_t>(head->header_bytes);
  require(bytes <= data.size() && bytes >= 10);
  const std::string text = written(*head);
  std::string whole("\x93NUMPY\x01\0", 8);
  whole += static_cast<char>((bytes - 10) & 0xFF);
  whole += static_cast<char>((bytes - 10) >> 8);
  whole += text;
  require(whole.size() < bytes);
  whole.resize(bytes - 1, ' ');
  require(data.starts_with(whole + "\n"));
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
