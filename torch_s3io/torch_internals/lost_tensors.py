"""Tensors that could not be unpickled: an error where the loop meets them, not before.

Issue: pytorch/pytorch#28950 (what unpickling raises ends torch's pin thread, and with it the
loader). Without that thread torch's iterator never counts the batch as received, and waits for it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from types import ModuleType
from typing import Any, NoReturn

import torch

from ..errors import DataError, Error
from .frames import find_name


class LostTensor:
    """Stands where a tensor should be whose bytes are gone, or another rank's. Its attributes and
    methods, those of a tensor, raise the error; so do indexing, iteration, len() and torch's
    functions.

    With torch's DataLoader, ``next()`` raises it, and the loader goes on with the next batch.
    """

    def __init__(self, reason: str, kind: type[Error] = DataError) -> None:
        self._reason = reason
        self._kind = kind

    def raise_it(self) -> NoReturn:
        raise self._kind(self._reason)

    def pin_memory(self, *_: Any) -> NoReturn:  # called by torch's pin thread, which hands it on
        self.raise_it()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self.raise_it()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any, options: Any = None) -> Any:
        lost = find_lost((args, options))
        assert lost is not None
        lost.raise_it()

    def _refuse(self, *_: Any) -> NoReturn:
        self.raise_it()

    # Python looks for these in the class.
    __len__ = __iter__ = __getitem__ = __setitem__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __neg__ = __matmul__ = _refuse
    __bool__ = __int__ = __float__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


def lose_tensor(reason: str, kind: type[Error] = DataError) -> LostTensor:
    """In its place; from the first one on, the iterators of torch and torchdata look for them.

    Note: to them a nested LostTensor is just data; they raise only a top-level ExceptionWrapper.
    There is no hook in between, so the method is wrapped, in a process that has lost a tensor.
    """
    iterators = (
        find_name("torch.utils.data.dataloader", "_MultiProcessingDataLoaderIter"),
        find_name(
            "torchdata.stateful_dataloader.stateful_dataloader",
            "_StatefulMultiProcessingDataLoaderIter",
        ),
    )
    for iterator in iterators:
        if iterator is not None:
            _find_lost_in(iterator)
    return LostTensor(reason, kind)


def _find_lost_in(iterator: Any) -> None:
    original = getattr(iterator, "_process_data", None)
    wrapper = find_name("torch._utils", "ExceptionWrapper")
    if original is None or wrapper is None or getattr(original, "finds_lost_tensors", False):
        return

    def process_data(self: Any, data: Any, *args: Any) -> Any:
        lost = find_lost(data)
        if lost is not None:
            try:
                lost.raise_it()
            except Error:
                data = wrapper(where="in the main process")
        return original(self, data, *args)

    process_data.finds_lost_tensors = True  # type: ignore[attr-defined]
    iterator._process_data = process_data


def find_lost(data: Any) -> LostTensor | None:
    """One in a batch, however deep."""
    seen: set[int] = set()  # what holds itself is looked at once
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, LostTensor):
            return one
        if id(one) in seen or isinstance(one, (torch.Tensor, type, ModuleType)):
            continue
        seen.add(id(one))
        waiting += _held_by(one)
    return None


def _held_by(data: Any) -> list[Any]:
    if isinstance(data, dict):
        held = list(data.values())
    elif isinstance(data, (list, tuple, set, frozenset, deque)):
        held = list(data)
    else:
        held = []
    if dataclasses.is_dataclass(data):  # it may have slots
        held += [getattr(data, field.name, None) for field in dataclasses.fields(data)]
    return held + list(getattr(data, "__dict__", {}).values())
