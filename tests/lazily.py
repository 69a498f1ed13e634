"""Frameworks that are imported when a test of theirs begins.

Every process of the suite collects all tests, and to import Lightning and transformers takes ten
seconds. See also ``conftest.py``.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch


class Lazily:
    """A module, imported as soon as something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load(self) -> ModuleType:
        return importlib.import_module(self._name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks at all that a file has
            raise AttributeError(name)
        return getattr(self.load(), name)


def is_there(package: str) -> bool:
    """Whether it can be imported beside this PyTorch; transformers wants 2.6 or later."""
    is_refused = package == "transformers" and not hasattr(torch, "accelerator")
    return find_spec(package) is not None and not is_refused


def lazily(name: str, *, needs: str, reason: str) -> Any:
    """The file that calls this is skipped where the package is not there that the module needs."""
    if not is_there(needs):
        pytest.skip(reason, allow_module_level=True)
    return Lazily(name)
