#include "bindings/bindings.h"

namespace s3io::bindings {

void register_s3(pybind11::module_& module) { module.attr("built_with_s3") = false; }

}  // namespace s3io::bindings
