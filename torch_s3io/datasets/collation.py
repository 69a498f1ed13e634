"""Batches that torch's loader would make batches of.

Note: why frames. A data set is not told which loader reads it, or how. What calls ``iter(dataset)``
in torch's loaders, in the main process and in workers, is their fetcher, which knows. A data set
that wraps ours is called by it in our place; where another torch has no such caller, nothing is
refused.
"""

from __future__ import annotations

from types import FrameType
from typing import Any, NoReturn

from torch.utils.data import _utils, default_collate

from ..errors import ConfigError

_Fetcher: Any = getattr(_utils.fetch, "_IterableDatasetFetcher", None)


def would_stack(caller: FrameType) -> bool:
    """Whether what called ``__iter__`` is a loader that stacks what it gets, by torch's rules."""
    # Of no other frame: asking for its variables would keep them, and so its batches, alive.
    if _Fetcher is None or caller.f_code is not _Fetcher.__init__.__code__:
        return False
    fetcher: Any = caller.f_locals["self"]
    return fetcher.auto_collation is True and fetcher.collate_fn is default_collate


def refuse_to_be_stacked() -> NoReturn:
    raise ConfigError(
        "the data set makes the batches, and this DataLoader would stack them once more, with a "
        "dimension in front: give batch_size=None to the DataLoader, or to the data set, which "
        "then yields samples (torch_s3io.DataLoader has the right default). To stack batches, "
        "give the DataLoader a collate_fn of your own"
    )
