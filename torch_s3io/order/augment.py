"""Random numbers that belong to a record, not to the process that reads it."""

from __future__ import annotations

import torch

from .. import _C
from ..config import check_int
from .record_order import check_seed


def record_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """A generator whose numbers depend on these three alone.

    So a random augmentation is the same after a resume, under any number of workers and ranks::

        def augment(image, index, epoch):
            generator = s3io.record_generator(0, epoch, int(index))
            return image.flip(-1) if torch.rand((), generator=generator) < 0.5 else image

        RecordDataset(..., batch_size=None, transform=augment, pass_position=True)

    Args:
        seed: From 0 to 2**64 - 1.
        epoch: Not negative.
        index: Number of the record, not negative.

    Note: torch's generator on the CPU keeps 32 bits of its seed, so of a billion records some share
    their numbers with another one.
    """
    seed = check_seed(seed)
    check_int("epoch", epoch, 0)
    check_int("index", index, 0)
    key = _C.derive_key(seed, [_C.PURPOSE_AUGMENTATION, int(epoch), int(index)])
    return torch.Generator().manual_seed(key)
