"""The layers of csrc: a file includes only what lies below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp"})

# What a layer may include, besides itself.
ALLOWED = {
    "base": set(),
    "memory": {"base"},
    "io": {"base", "memory"},
    "order": {"base"},
    "format": {"base"},
    "store": {"base", "memory", "io"},
    "reader": {"base", "memory", "io", "store", "order", "format"},
    "bindings": {"base", "memory", "io", "store", "order", "format", "reader"},
}
# Includes that only the bindings may have, by the first part of their path.
PYTHON_SIDE = {"torch", "ATen", "c10", "pybind11", "Python.h", "structmember.h"}


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


def test_no_folder_is_named_torch():
    assert not [path for path in CSRC.rglob("torch") if path.is_dir()]
