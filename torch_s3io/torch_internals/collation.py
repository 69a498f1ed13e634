"""What loaders make of what a data set yields.

No issue known. A data set is not told which loader reads it, or how. In torch's loaders, in the
main process and in workers, their fetcher calls ``iter(dataset)``, and it knows. A data set that
wraps ours is called by it in our place.
"""

from __future__ import annotations

from functools import partial
from types import FrameType
from typing import Any, Literal

from torch.utils.data import DataLoader, default_collate

from .accelerate import cutting_codes, loader_codes
from .frames import callers, find_caller_in, find_name

Collation = Literal["none", "stacks", "makes batches"]


def collation_by(caller: FrameType) -> Collation:
    """What the loader that called ``__iter__`` does with what it gets, by torch's rules: nothing,
    or nothing that we know; it stacks items; or it is one of transformers, which makes the batches,
    whatever the data set wants."""
    fetcher = _fetcher_at(caller)
    if fetcher is None or fetcher.auto_collation is not True:
        return "none"
    return "stacks" if fetcher.collate_fn is default_collate else _collation_of(fetcher.collate_fn)


def _fetcher_at(caller: FrameType) -> Any:
    kind = find_name("torch.utils.data._utils.fetch", "_IterableDatasetFetcher")
    if kind is None:
        return None
    if caller.f_code in cutting_codes():
        fetches = find_caller_in(caller, kind.fetch.__code__)
    else:
        fetches = caller if caller.f_code is kind.__init__.__code__ else None
    return None if fetches is None else fetches.f_locals["self"]


def _collation_of(collate: Any) -> Collation:
    while True:
        if isinstance(collate, partial):
            collate = collate.func
        elif hasattr(collate, "data_collator"):  # RemoveColumnsCollator of transformers
            collate = collate.data_collator
        else:
            break
    module = getattr(collate, "__module__", None) or type(collate).__module__
    return "makes batches" if module.split(".")[0] == "transformers" else "none"


def counts_samples(caller: FrameType) -> bool:
    """Whether the loader that asks for a length makes the batches."""
    loader = _loader_that_counts(caller)
    if loader is None or loader.batch_size is None:
        return False
    return _collation_of(loader.collate_fn) == "makes batches"


def _loader_that_counts(caller: FrameType) -> Any:
    """torch's loader, or accelerate's around it, that asks for the length; None if it is somebody
    else."""
    codes = {DataLoader.__len__.__code__} | loader_codes()
    for frame in callers(caller):
        if frame.f_code in codes:
            return frame.f_locals["self"]
        if frame.f_code not in cutting_codes():
            return None
    return None
