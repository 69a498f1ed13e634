"""What accelerate and transformers do with what a data set yields, told by who asks for it.

Their loaders wrap the data set, or the loader that has it, and tell neither. Where nobody has
imported them, nothing is looked for.
"""

from __future__ import annotations

from types import CodeType, FrameType
from typing import NamedTuple

from .frames import callers, codes_of


def is_shared_out(caller: FrameType) -> bool:
    """Whether what asks gives every rank its share of what it gets: a loader of accelerate that
    reads on rank 0 and sends batches to the others, or one that reads everything on all ranks and
    drops the rest.

    Issue: huggingface/accelerate#3547, huggingface/accelerate#4199.
    """
    codes = codes_of("accelerate.data_loader", "DataLoaderDispatcher") | cutting_codes()
    return bool(codes) and any(frame.f_code in codes for frame in callers(caller))


def cutting_codes() -> set[CodeType]:
    """Of what cuts batches, and a rank's share of them, out of samples."""
    accelerates = codes_of("accelerate.data_loader", "IterableDatasetShard")
    return accelerates | codes_of("transformers.trainer_pt_utils", "IterableDatasetShard")


def cuts_without_size(caller: FrameType) -> bool:
    """Whether accelerate is about to cut batches of a size that nobody has given.

    Issue: huggingface/accelerate#3547. It would fail with an error that does not say why.
    """
    return caller.f_code in cutting_codes() and caller.f_locals["self"].batch_size is None


def loader_codes() -> set[CodeType]:
    """Of accelerate's loaders around torch's."""
    return codes_of("accelerate.data_loader", "DataLoaderStateMixin")


class Skipping(NamedTuple):
    """Batches that accelerate takes and drops from the start of an epoch on.

    Attributes:
        epoch: As transformers.Trainer counts, where it resumes; None: somebody else does.
    """

    epoch: int | None


def find_skipping(caller: FrameType) -> Skipping | None:
    """What ``accelerate.skip_first_batches`` made of a loader of torch or of ours, and nothing
    else: it has no ``set_epoch``.

    Issue: huggingface/accelerate#2016, huggingface/accelerate#2823.
    """
    skips = codes_of("accelerate.data_loader", "SkipDataLoader")
    above = callers(caller)
    if not any(frame.f_code in skips for frame in above):
        return None
    trains = codes_of("transformers.trainer", "Trainer")
    for frame in above:
        if frame.f_code in trains and type(frame.f_locals.get("epoch")) is int:
            return Skipping(frame.f_locals["epoch"])
    return Skipping(None)
