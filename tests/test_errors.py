"""The error classes: one string, pickled whole, with built-in bases, as many as the core has."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

import torch_s3io
from torch_s3io import errors

CSRC = Path(__file__).parents[1] / "csrc"

BUILTIN_BASES = {
    "ConfigError": ValueError,
    "DataError": ValueError,
    "NotFoundError": FileNotFoundError,
    "AccessError": PermissionError,
    "ReadError": OSError,
    "WriteError": OSError,
    "NoSpaceError": OSError,
    "ExistsError": FileExistsError,
    "FileChangedError": OSError,
    "ObjectChangedError": OSError,
    "DirectIOError": OSError,
    "EngineError": RuntimeError,
    "PoolTimeoutError": TimeoutError,
    "ReadTimeoutError": TimeoutError,
    "WriteTimeoutError": TimeoutError,
    "RangeError": IndexError,
    "OutOfMemoryError": MemoryError,
}


def test_the_classes_are_all_there_is():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == set(BUILTIN_BASES) | {"Error"}
    assert classes <= set(torch_s3io.__all__)


@pytest.mark.parametrize("name", sorted(BUILTIN_BASES))
def test_a_class_has_the_common_base_and_a_built_in_one(name):
    kind = getattr(torch_s3io, name)
    assert issubclass(kind, torch_s3io.Error)
    assert issubclass(kind, BUILTIN_BASES[name])


@pytest.mark.parametrize("name", ["Error", *sorted(BUILTIN_BASES)])
def test_an_error_of_one_string_survives_pickling(name):
    kind = getattr(torch_s3io, name)
    error = kind("/data/x.bin: 42 % of it; raise capacity")
    assert str(error) == "/data/x.bin: 42 % of it; raise capacity"
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error), kind(str(error))):
        assert type(copied) is kind
        assert str(copied) == str(error)
        assert copied.args == error.args


def test_a_changed_file_is_a_failed_read():
    assert issubclass(torch_s3io.FileChangedError, torch_s3io.ReadError)


def error_kinds() -> list[str]:
    """The enumerators of ErrorKind in csrc/base/error.h."""
    text = (CSRC / "base" / "error.h").read_text()
    body = re.search(r"enum class ErrorKind[^{]*\{(.*?)\};", text, re.DOTALL)
    assert body
    return re.findall(r"^\s*(\w+)\s*,?", re.sub(r"//.*", "", body[1]), re.MULTILINE)


def translations() -> dict[str, str]:
    """Kind and class name, from csrc/bindings/errors.cpp."""
    text = (CSRC / "bindings" / "errors.cpp").read_text()
    return dict(re.findall(r'case ErrorKind::(\w+):\s*return "(\w+)"', text))


def test_every_kind_of_the_core_has_its_class():
    kinds = error_kinds()
    assert len(kinds) == len(set(kinds)) == len(BUILTIN_BASES)
    assert set(translations()) == set(kinds)
    assert sorted(translations().values()) == sorted(BUILTIN_BASES)


def test_kinds_and_classes_have_the_same_names():
    def normalized(name: str) -> str:
        return name.replace("_", "").removesuffix("Error").lower()

    for kind, name in translations().items():
        assert normalized(kind) == normalized(name)
