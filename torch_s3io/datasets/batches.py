"""From batches as they were read to what the loop gets: single samples, transforms, indices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, RangeError
from ..format.ragged import Ragged
from .options import DatasetOptions


def as_wanted(batches: Iterator[Any], options: DatasetOptions, epoch: int) -> Iterator[Any]:
    """The batches (samples with ``batch_size=None``) as the options say."""
    if options.batch_size is None:
        batches = _samples(batches, options.with_record_numbers)
    if options.transform is None:
        return batches
    # Not a generator: that would hold on to a batch while the loop works on it.
    return map(partial(transformed, options, epoch), batches)


def transformed(options: DatasetOptions, epoch: int, batch: Any) -> Any:
    """One batch, or sample, after ``transform``."""
    if options.transform is None:
        return batch
    if not options.with_record_numbers:
        return _call(options.transform, batch)
    records, index = batch
    position = (index, epoch) if options.pass_position else ()
    result = _call(options.transform, records, *position)
    return (result, index) if options.return_index else result


def _call(transform: Callable[..., Any], *arguments: Any) -> Any:
    """Calls it. A StopIteration out of it must not pass for the end of the epoch."""
    try:
        result = _run(transform, *arguments)
    except StopIteration as error:
        raise RuntimeError(
            "transform raised StopIteration: a next() in it found nothing more; give it a "
            "default, or "
            "catch the error there"
        ) from error
    if result is None:
        raise ConfigError(
            "transform returned None, which would be the batch: let it return the batch, also "
            "where it changes it in place"
        )
    return result


class _Running(threading.local):
    transforms = 0


_running = _Running()


def runs_transform() -> bool:
    """Whether this thread is within a transform: what it reads is read for that."""
    return _running.transforms > 0


def _run(transform: Callable[..., Any], *arguments: Any) -> Any:
    _running.transforms += 1
    try:
        return transform(*arguments)
    finally:
        _running.transforms -= 1


def _samples(batches: Iterator[Any], with_index: bool) -> Iterator[Any]:
    for batch in batches:
        if with_index:
            records, index = batch
            del batch
            yield from zip(rows(records), index.unbind(0), strict=True)
            del records, index
        else:
            yield from rows(batch)
            del batch


def rows(records: Any) -> Iterator[Any]:
    """The records of a batch, one by one, as views."""
    if isinstance(records, torch.Tensor):
        return iter(records.unbind(0))
    if isinstance(records, Ragged):
        return iter(records)
    columns = [_rows_of(column) for column in records.values()]
    return (dict(zip(records, row, strict=True)) for row in zip(*columns, strict=True))


def _rows_of(column: Any) -> Iterable[Any]:
    return column.unbind(0) if isinstance(column, torch.Tensor) else column


def as_numbers(indices: Any) -> list[int]:
    """Record numbers as a list; raises ConfigError for what is not a sequence of integers."""
    try:
        array = np.asarray(indices)
    except (TypeError, ValueError):  # rows of different lengths, a tensor without data
        raise ConfigError(
            "indices must be a one-dimensional sequence of integers, as in [7, 3]"
        ) from None
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(
            f"indices must be a one-dimensional sequence of integers, not {array.dtype} with shape "
            f"{array.shape}"
        )
    if array.max() >= 1 << 63:
        raise RangeError(f"record {array.max()} does not exist: the number is too large")
    numbers: list[int] = array.tolist()
    return numbers
