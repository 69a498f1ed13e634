"""What accelerate and transformers do with what a data set yields, told by who asks for it.

Note: why frames. Their loaders wrap the data set, or the loader that has it, and tell neither. What
calls knows (see callers.py). Where other versions have no such callers, nothing is noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..processes.ranks import Ranks

_ACCELERATE, _TRAINER, _TRAINER_UTILS = (
    "accelerate.data_loader",
    "transformers.trainer",
    "transformers.trainer_pt_utils",
)


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def codes_of(module: str, *classes: str) -> set[CodeType]:
    """Of the methods of these classes, where somebody has imported the module."""
    kinds = [getattr(sys.modules.get(module), name, object) for name in classes]
    functions = [function for kind in kinds for function in vars(kind).values()]
    return {function.__code__ for function in functions if hasattr(function, "__code__")}


# ---- Sharing out.


def is_shared_out() -> bool:
    """Whether what asks gives every rank its share of what it gets: a loader of accelerate that
    reads on rank 0 and sends batches to the others, or one that reads everything on all ranks and
    drops the rest."""
    codes = codes_of(_ACCELERATE, "DataLoaderDispatcher") | cutting_codes()
    return any(frame.f_code in codes for frame in callers(sys._getframe(1)))


def cutting_codes() -> set[CodeType]:
    """Of what cuts batches, and a rank's share of them, out of samples."""
    kind = "IterableDatasetShard"
    return codes_of(_ACCELERATE, kind) | codes_of(_TRAINER_UTILS, kind)


def whole(ranks: Ranks) -> Ranks:
    """What a rank reads of which somebody else makes shares.

    Raises:
        ConfigError: The data set was told to make them.
    """
    if ranks.source == "arguments" and ranks.world_size > 1:
        raise ConfigError(
            f"rank={ranks.rank}, world_size={ranks.world_size} in the data set, and accelerate "
            "shares out what it yields once more, so that most records would never come: leave "
            "rank= and world_size= out, or do not prepare() the loader"
        )
    return Ranks(0, 1, "accelerate")


def refuse_to_be_cut(caller: FrameType) -> None:
    """Raises ConfigError where accelerate would fail to, with an error that does not say why."""
    if caller.f_code in cutting_codes() and caller.f_locals["self"].batch_size is None:
        raise ConfigError(
            "accelerate with dispatch_batches=False makes batches and shares of samples: give "
            "batch_size=None to the data set and batch_size=... to the DataLoader; or leave "
            "dispatch_batches alone; or do not prepare() the loader, as the data set finds its "
            "rank by itself"
        )


# ---- Lengths.


def loader_that_counts(caller: FrameType) -> Any:
    """torch's loader, or accelerate's around it, that asks for the length; None if it is somebody
    else."""
    codes = {DataLoader.__len__.__code__} | codes_of(_ACCELERATE, "DataLoaderStateMixin")
    for frame in callers(caller):
        if frame.f_code in codes:
            return frame.f_locals["self"]
        if frame.f_code not in cutting_codes():
            return None
    return None


# ---- Skipping.


class Skipping(NamedTuple):
    """Batches that accelerate takes and drops from the start of an epoch on.

    Attributes:
        epoch: As transformers.Trainer counts, where it resumes; None: somebody else does.
    """

    epoch: int | None


def find_skipping() -> Skipping | None:
    """What ``accelerate.skip_first_batches`` made of a loader of torch or of ours, and nothing
    else: it has no ``set_epoch``."""
    skips = codes_of(_ACCELERATE, "SkipDataLoader")
    above = callers(sys._getframe(1))
    if not any(frame.f_code in skips for frame in above):
        return None
    trains = codes_of(_TRAINER, "Trainer")
    for frame in above:
        if frame.f_code in trains and type(frame.f_locals.get("epoch")) is int:
            return Skipping(frame.f_locals["epoch"])
    return Skipping(None)
