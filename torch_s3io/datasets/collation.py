"""What loaders make of what a data set yields.

Note: why frames. A data set is not told which loader reads it, or how. What calls ``iter(dataset)``
in torch's loaders, in the main process and in workers, is their fetcher, which knows. A data set
that wraps ours is called by it in our place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any, Literal

import torch
from torch.utils.data import _utils, default_collate

from ..errors import ConfigError
from ..format.delivery import Decoded
from ..format.ragged import Ragged
from .frameworks import callers, cutting_codes, loader_that_counts

_Fetcher: Any = getattr(_utils.fetch, "_IterableDatasetFetcher", None)

Collation = Literal["none", "stacks", "makes batches"]


def collation_by(caller: FrameType) -> Collation:
    """What the loader that called ``__iter__`` does with what it gets, by torch's rules: nothing,
    or nothing that we know; it stacks items; or it is one of transformers, which makes the batches,
    whatever the data set wants."""
    fetcher = _fetcher_at(caller)
    if fetcher is None or fetcher.auto_collation is not True:
        return "none"
    return "stacks" if fetcher.collate_fn is default_collate else collation_of(fetcher.collate_fn)


def _fetcher_at(caller: FrameType) -> Any:
    if _Fetcher is None:
        return None
    frames = callers(caller)
    frame: FrameType | None = next(frames)
    if caller.f_code in cutting_codes():
        frame = next((frame for frame in frames if frame.f_code is _Fetcher.fetch.__code__), None)
    # Of no other frame: asking for its variables would keep them, and so its batches, alive.
    elif caller.f_code is not _Fetcher.__init__.__code__:
        frame = None
    return None if frame is None else frame.f_locals["self"]


def collation_of(collate: Any) -> Collation:
    while True:
        if isinstance(collate, partial):
            collate = collate.func
        elif hasattr(collate, "data_collator"):  # of transformers, which leaves out columns first
            collate = collate.data_collator
        else:
            break
    module = getattr(collate, "__module__", None) or type(collate).__module__
    return "makes batches" if module.split(".")[0] == "transformers" else "none"


def counts_samples(caller: FrameType) -> bool:
    """Whether the loader that asks for a length makes the batches."""
    loader = loader_that_counts(caller)
    if loader is None or loader.batch_size is None:
        return False
    return collation_of(loader.collate_fn) == "makes batches"


def samples_of(batches: Iterator[Any]) -> Iterator[Any]:
    """The samples of batches, for who makes batches of them."""
    for batch in batches:
        yield from _samples(batch)
        del batch


def _samples(batch: Any) -> Iterator[Any]:
    if isinstance(batch, torch.Tensor) and batch.dim() > 0:
        return iter(batch.unbind(0))
    if isinstance(batch, Ragged | Decoded):
        return iter(batch)
    items = batch.values() if isinstance(batch, Mapping) else batch
    if not isinstance(batch, Mapping | tuple | list):
        raise ConfigError(
            f"transformers makes batches of samples, and the transform of this data set made a "
            f"{type(batch).__name__} of a batch, which has none: give batch_size=None to the data "
            "set, whose transform is then called with samples"
        )
    columns = zip(*map(_samples, items), strict=True)
    if isinstance(batch, Mapping):
        return (dict(zip(batch, column, strict=True)) for column in columns)
    return iter(columns)
