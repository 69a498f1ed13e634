// What the binding files share. Each registers the classes of one layer.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

namespace s3io::bindings {

// dict[str, Any]
using StatsDict = pybind11::typing::Dict<pybind11::str, pybind11::object>;

void register_errors(pybind11::module_& module);
void register_memory(pybind11::module_& module);
void register_store(pybind11::module_& module);
void register_reader(pybind11::module_& module);
void register_benchmark(pybind11::module_& module);

// For calls that wait without the GIL: lets Python handle a signal, and throws what its handler
// raised, so that Ctrl-C works.
void check_signals();

}  // namespace s3io::bindings
