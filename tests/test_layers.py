"""The layers of csrc and of the Python package: a file uses only what lies below it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
PACKAGE = Path(__file__).parents[1] / "torch_s3io"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp"})

# What a layer may include, besides itself.
ALLOWED = {
    "base": set(),
    "memory": {"base"},
    "io": {"base", "memory"},
    "order": {"base"},
    "format": {"base", "order"},
    "store": {"base", "memory", "io"},
    "http": {"base", "memory", "io", "store"},
    "reader": {"base", "memory", "io", "store", "order", "format"},
    "bindings": {"base", "memory", "io", "store", "http", "order", "format", "reader"},
}
# What those who read know of these layers: the seams, and no files.
SEAMS = {
    "io": {"io/range_reader.h"},
    "store": {"store/byte_writer.h", "store/store.h", "store/waiting.h"},
}
# Includes that only the bindings may have, by the first part of their path.
PYTHON_SIDE = {"torch", "ATen", "c10", "pybind11", "Python.h", "structmember.h"}
# Includes that nothing has: beside some builds of PyTorch a stream that formats or parses a number
# crashes (base/error.h).
STREAMS = {
    *("iostream", "istream", "ostream", "fstream", "sstream", "strstream", "spanstream"),
    *("syncstream", "streambuf", "iomanip"),
}
# What parses numbers by the locale, or by a stream, instead of std::from_chars. The functions of C
# need no namespace before them.
OTHER_NUMBER_PARSERS = re.compile(
    r"(?<![\w:.>])(?:(?:std)?::)?(?:strto(?:l|ll|ul|ull|imax|umax|f|d|ld)|ato(?:i|l|ll|f)|v?[fs]?scanf)"
    r"(?= *\()"
    r"|(?<![\w:])std::(?:sto(?:i|l|ll|ul|ull|f|d|ld)|\w*stream(?:buf)?|getline|regex)\b"
)


def includes_of(source: Path) -> list[str]:
    pattern = re.compile(r'^\s*#\s*(?:include|import)\s*[<"]([^>"]+)[>"]', re.MULTILINE)
    return pattern.findall(source.read_text())


def layer_of(source: Path) -> str:
    return source.relative_to(CSRC).parts[0]


def upward_includes(layer: str, includes: list[str]) -> list[str]:
    ours = [name for name in includes if "/" in name]  # <memory> is the standard library's
    return [
        name
        for name in ours
        if name.split("/")[0] in ALLOWED and name.split("/")[0] not in ALLOWED[layer] | {layer}
    ]


def python_includes(includes: list[str]) -> list[str]:
    return [name for name in includes if name.split("/")[0] in PYTHON_SIDE]


def test_the_check_sees_an_upward_include():
    assert upward_includes("io", ["base/error.h", "store/file_store.h", "memory"]) == [
        "store/file_store.h"
    ]
    assert python_includes(["vector", "c10/core/Storage.h"]) == ["c10/core/Storage.h"]


def test_batches_are_read_through_a_store_of_any_kind():
    for source in SOURCES:
        if layer_of(source) in {"reader", "http"}:
            for name in includes_of(source):
                seam = SEAMS.get(name.partition("/")[0])
                assert seam is None or name in seam, f"{source} knows {name}"


def test_every_folder_of_csrc_is_a_known_layer():
    assert {layer_of(source) for source in SOURCES} == set(ALLOWED)


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_a_layer_includes_only_what_lies_below_it(layer):
    sources = [source for source in SOURCES if layer_of(source) == layer]
    assert sum(len(includes_of(source)) for source in sources) > 0
    wrong = {str(source): upward_includes(layer, includes_of(source)) for source in sources}
    assert {source: names for source, names in wrong.items() if names} == {}


def test_quoted_includes_name_files_of_csrc():
    for source in SOURCES:
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', source.read_text(), re.MULTILINE):
            assert (CSRC / name).is_file(), f"{source}: {name}"


def test_only_the_bindings_see_python_and_torch():
    wrong = {
        str(source): python_includes(includes_of(source))
        for source in SOURCES
        if layer_of(source) != "bindings"
    }
    assert {source: names for source, names in wrong.items() if names} == {}
    assert python_includes(includes_of(CSRC / "bindings" / "tensors.cpp")) != []


def streams_and_parsers(text: str, includes: list[str]) -> list[str]:
    return [name for name in includes if name in STREAMS] + OTHER_NUMBER_PARSERS.findall(text)


def test_the_check_sees_a_number_from_a_stream():
    text = "std::ifstream file(path); int n = std::stoi(x); ::strtoll(y, &end, 10);"
    assert streams_and_parsers(text, ["fstream", "vector"]) == [
        *("fstream", "std::ifstream", "std::stoi", "::strtoll")
    ]
    text = "using std::strtol; long n = strtol(x, &end, 10); sscanf(x, format, &n); atoi (x);"
    assert streams_and_parsers(text, []) == ["strtol", "sscanf", "atoi"]
    harmless = "// no streams here\nio_stream_count(); word >> 3; reader.scanf(x); int strtol_n;"
    assert streams_and_parsers(harmless, []) == []


def test_no_number_is_parsed_from_a_stream_or_by_the_locale():
    wrong = {
        str(source.relative_to(CSRC)): streams_and_parsers(source.read_text(), includes_of(source))
        for source in SOURCES
    }
    assert {source: names for source, names in wrong.items() if names} == {}


def test_only_one_file_pair_sees_tensors():
    torch_side = {"torch", "ATen", "c10"}
    seeing = {
        source.name
        for source in SOURCES
        if any(name.split("/")[0] in torch_side for name in includes_of(source))
    }
    assert seeing == {"tensors.cpp"}


def test_nothing_includes_cuda():
    for source in SOURCES:
        assert [name for name in includes_of(source) if "cuda" in name.lower()] == [], source


def test_liburing_is_included_in_one_place():
    seeing = [source.name for source in SOURCES if "liburing.h" in includes_of(source)]
    assert seeing == ["uring_engine.h"]


def test_libcurl_and_openssl_are_included_by_what_hides_them():
    for library, names in {
        "curl/": {
            "curl_exchange.cpp",
            "curl_exchange.h",
            "curl_reactor.h",
            "curl_sockets.h",
            "curl_transport.cpp",
        },
        "openssl/": {"sigv4.cpp"},
    }.items():
        seeing = {
            source.name
            for source in SOURCES
            if any(name.startswith(library) for name in includes_of(source))
        }
        assert seeing <= names


def test_no_folder_is_named_torch():
    assert not [path for path in CSRC.rglob("torch") if path.is_dir()]


# ---- The Python package.

MODULES = sorted(PACKAGE.rglob("*.py"))
# What everything may import, and what may import everything.
SHARED = {"_C", "_version", "config", "errors", "keywords", "warning", "wording"}
TOP = {"__init__", "__main__"}
# What a folder, or a module beside them, may import, but for itself and what is shared.
ALLOWED_IMPORTS = {
    "memory": set(),
    "console": set(),
    "torch_internals": set(),
    "store": {"torch_internals"},
    "index": {"store", "console"},
    "format": {"store", "index", "torch_internals"},
    "processes": {"torch_internals"},
    "order": {"format", "torch_internals"},
    "datasets": {"format", "index", "store", "processes", "order", "torch_internals"},
    "loading": {"format", "processes", "order", "datasets", "torch_internals"},
    "writing": {"memory", "format", "store", "processes", "datasets"},
    "checkpoint": {"format", "store"},
    "bench": {"console", "store", "processes", "datasets", "loading"},
    "doctor": {"format", "index", "store"},
    "cli": {"console", "format", "index", "store", "processes", "writing", "bench", "doctor"},
}


def part_of(module: Path) -> str:
    """The folder of a module, or its own name where it lies in none."""
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(module: Path, source: str) -> set[str]:
    """The folders and modules of the package that a module imports; all: ``__init__``."""
    here = ("torch_s3io", *module.relative_to(PACKAGE).parts[:-1])
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else ()
            path = [*start, *(node.module or "").split(".")] if node.module else [*start]
            names += [[*path, alias.name] for alias in node.names]
    return {[*name, "__init__"][1] for name in names if name[0] == "torch_s3io"}


def upward_imports(module: Path, source: str) -> set[str]:
    part = part_of(module)
    if part in TOP:
        return set()
    return imported_parts(module, source) - SHARED - {part} - ALLOWED_IMPORTS.get(part, set())


def test_the_check_sees_an_upward_import():
    module = PACKAGE / "order" / "state.py"
    lines = "from .. import _C\nfrom ..config import MIB\nfrom ..format.objects import Shard\n"
    assert upward_imports(module, lines + "from .epochs import Position\nimport os.path\n") == set()
    assert upward_imports(module, "from ..loading.loader_pass import x\n") == {"loading"}
    assert upward_imports(module, "def f():\n    from .. import datasets\n") == {"datasets"}
    assert upward_imports(module, "import torch_s3io.cli.pack\n") == {"cli"}
    assert upward_imports(module, "import torch_s3io as s3io\n") == {"__init__"}
    assert upward_imports(PACKAGE / "errors.py", "from .order import state\n") == {"order"}


def test_every_part_of_the_package_is_known():
    assert {part_of(module) for module in MODULES} == (SHARED - {"_C"}) | TOP | set(ALLOWED_IMPORTS)


@pytest.mark.parametrize("part", sorted(ALLOWED_IMPORTS | dict.fromkeys(SHARED - {"_C"})))
def test_a_part_imports_only_what_lies_below_it(part):
    modules = [module for module in MODULES if part_of(module) == part]
    assert modules
    wrong = {str(module): upward_imports(module, module.read_text()) for module in modules}
    assert {module: parts for module, parts in wrong.items() if parts} == {}


def test_the_folders_of_the_package_are_in_an_order():
    placed: set[str] = set()
    for part, below in ALLOWED_IMPORTS.items():
        assert below <= placed, part
        placed.add(part)
