#include <pybind11/pybind11.h>

#include "bindings/bindings.h"
#include "io/uring.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, module) {
  module.doc() = "The C++ core of torch_s3io. Private: use the Python package.";
  module.attr("__version__") = S3IO_VERSION;
  module.attr("built_with_uring") = s3io::kBuiltWithUring;
  s3io::bindings::register_errors(module);
  s3io::bindings::register_memory(module);
  s3io::bindings::register_order(module);
  s3io::bindings::register_epochs(module);
  s3io::bindings::register_files(module);
  s3io::bindings::register_objects(module);
  s3io::bindings::register_forms(module);
  s3io::bindings::register_tokens(module);  // takes the classes of register_forms
  s3io::bindings::register_reader(module);  // takes the classes of all before it
  s3io::bindings::register_store(module);   // takes the FaultPlan of register_files
  s3io::bindings::register_s3(module);      // takes the Store of register_files, and its writer
  s3io::bindings::register_handover(module);
  s3io::bindings::register_folders(module);
  s3io::bindings::register_arrays(module);
  s3io::bindings::register_tars(module);  // takes the Store of register_files
  s3io::bindings::register_benchmark(module);
}
