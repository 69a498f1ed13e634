"""Copies batches to a device ahead of the training step."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
)
from functools import partial
from typing import Any

import torch

from ..config import check_int
from ..errors import ConfigError
from ..format.ragged import Ragged, map_ragged
from ..keywords import checks_keywords
from ..order.progress import Counting
from ..order.state import State


@checks_keywords
class DevicePrefetcher:
    """Iterates over ``loader`` with its tensors on ``device``, the next ``depth`` under way.

    ::

        batches = s3io.DevicePrefetcher(loader, "cuda")
        for epoch in loader.epochs(10):
            for batch in batches:
                step(batch)  # may use the tensors on the current stream at once

    Copies run on a stream of their own while the step computes; from page-locked batches
    (``pin_memory``) they do not block the loop. The buffer behind a batch is reused only when its
    copy is done.
    Tensors in dicts, lists, tuples, dataclasses, Raggeds and whatever else is a mapping or sequence
    are copied; everything else is passed on as it is. On the CPU batches pass through.

    Args:
        loader: Any iterable of batches.
        device: For instance ``"cuda"``, ``"cuda:1"`` or ``"cpu"``.
        depth: Batches on the device, or on their way, before the loop asks for them.
    """

    def __init__(self, loader: Iterable[Any], device: str | torch.device, depth: int = 2) -> None:
        check_int("depth", depth, 1)
        can_iterate = hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
        if isinstance(loader, type) or not can_iterate:
            raise ConfigError(f"loader must be an iterable of batches, not {loader!r}")
        try:
            self._device = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(
                f"{device!r} is not a device, such as 'cuda', 'cuda:1' or 'cpu': {error}"
            ) from None
        if self._device.type not in ("cpu", "cuda"):
            raise ConfigError(f"device must be a CPU or a CUDA device, not {device!r}")
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"device {device!r}: this PyTorch finds no CUDA device; 'cpu' passes batches "
                "through, and "
                "`nvidia-smi` and torch.version.cuda say what is there"
            )
        self._loader = loader
        self._depth = depth
        # Without a reference to this object, which then takes its loader along as it goes: of a
        # cycle that is collected, torch's workers would be waited for, five seconds each.
        self._make_copier: Callable[[], Any] = partial(_CudaCopier, self._device)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def state_dict(self) -> State:
        """The loader's, or data set's: where the loop is, not how far batches were taken ahead."""
        state: State = self._stateful("state_dict").state_dict()
        return state

    def load_state_dict(self, state: State, **options: Any) -> None:
        """The loader's, or data set's, with its options (``strict=``)."""
        self._stateful("load_state_dict").load_state_dict(state, **options)

    def epochs(self, stop: int) -> Iterator[int]:
        """The loader's, or data set's."""
        epochs: Iterator[int] = self._stateful("epochs").epochs(stop)
        return epochs

    def _stateful(self, method: str) -> Any:
        if not hasattr(self._loader, method):
            raise ConfigError(
                f"{method}() needs a loader that has one, such as torch_s3io.DataLoader, in the "
                f"DevicePrefetcher, not {type(self._loader).__name__}"
            )
        return self._loader

    def __iter__(self) -> Iterator[Any]:
        if self._device.type == "cpu":
            yield from self._loader
            return
        copier = self._make_copier()
        batches = iter(self._loader)
        count_on_hand_out = getattr(batches, "count_on_hand_out", None)
        counting: Counting | None = None if count_on_hand_out is None else count_on_hand_out()
        under_way: deque[Any] = deque()
        failure: Exception | None = None

        def start_next() -> bool:
            nonlocal failure
            try:
                return failure is None and bool(copier.start_next(batches, under_way))
            except Exception as error:
                failure = error  # comes after the batches that came before it
                return False

        try:
            while True:
                while len(under_way) < self._depth and start_next():
                    pass
                if not under_way:
                    break
                batch = copier.hand_out(under_way.popleft())
                start_next()  # before the step does
                if counting is not None:
                    counting.count()
                yield batch
                del batch
        finally:
            copier.close()
            under_way.clear()
        if failure is not None:
            raise failure
        if counting is not None:
            counting.end()


class _CudaCopier:
    """Copies on a stream of its own; what it hands out is safe on the current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def start_next(self, batches: Iterator[Any], under_way: deque[Any]) -> bool:
        # What is dropped while the copying stream is the current one, by the loader or here, is
        # reused only when the copies that were submitted are done: our buffers as well as torch's
        # own page-locked memory. A loader may hold on to a batch until it is asked for the next.
        with torch.cuda.stream(self._stream):
            batch = next(batches, _END)
            if batch is _END:
                return False
            copy = map_tensors(lambda tensor: tensor.to(self._device, non_blocking=True), batch)
            done = torch.cuda.Event()
            done.record(self._stream)
            del batch
        under_way.append((copy, done))
        return True

    def hand_out(self, started: tuple[Any, Any]) -> Any:
        copy, done = started
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(done)

        def use_here(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(stream)
            return tensor

        return map_tensors(use_here, copy)

    def close(self) -> None:
        """Before the loader drops what it holds, on any stream."""
        self._stream.synchronize()


_END = object()


def map_tensors(function: Callable[[torch.Tensor], Any], data: Any) -> Any:
    """The same structure with ``function`` applied to every tensor in it.

    What containers become is what they become where torch pins them: of the same class, or a dict
    or list where the class does not allow that. What holds no other tensors is returned itself.
    """
    if isinstance(data, torch.Tensor):
        return function(data)
    if isinstance(data, Ragged):
        return map_ragged(function, data)
    items = _items(data)
    mapped = {key: map_tensors(function, item) for key, item in items.items()}
    if all(mapped[key] is items[key] for key in items):
        return data
    kind: Any = type(data)
    if isinstance(data, Mapping):
        try:
            if isinstance(data, MutableMapping):
                return _changed(data, mapped)
            return kind(mapped)
        except TypeError:
            return mapped
    values = mapped.values()
    if isinstance(data, tuple):
        return kind(*values) if hasattr(data, "_fields") else kind(values)
    if isinstance(data, Sequence):
        try:
            if isinstance(data, MutableSequence):
                return _changed(data, mapped)
            return kind(list(values))
        except TypeError:
            return list(values)
    clone = copy.copy(data)
    for name, value in mapped.items():
        object.__setattr__(clone, name, value)  # which frozen ones do not refuse
    return clone


def _items(data: Any) -> dict[Any, Any]:
    """What a container or dataclass holds, by key, index or name; nothing where it is neither."""
    if isinstance(data, Mapping):
        return dict(data)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes, bytearray, range)):
        return dict(enumerate(data))
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        names = [field.name for field in dataclasses.fields(data)]
        fields = {name: getattr(data, name) for name in names if hasattr(data, name)}
        return fields | getattr(data, "__dict__", {})
    return {}


def _changed(data: Any, items: dict[Any, Any]) -> Any:
    """A shallow copy, since a class may keep more than its items, with these in it."""
    clone = copy.copy(data)
    for key, item in items.items():
        clone[key] = item
    return clone
