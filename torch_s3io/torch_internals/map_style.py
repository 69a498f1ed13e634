"""Who takes a data set for a map-style one.

No issue known. torch refuses iterable data sets there itself (pytorch/pytorch#19228), but in words
that say nothing of what to call instead ("expected unspecified shuffle option"); and it asks a data
set nothing but its class, its length and its iterator. The frame that asks knows.
"""

from __future__ import annotations

from abc import ABCMeta
from types import FrameType
from typing import Any

from torch.utils.data import ConcatDataset, DataLoader, random_split

from .frames import code_of


def who_asks_for_class(caller: FrameType) -> FrameType:
    """The caller, or who called ``isinstance`` where that is it."""
    if caller.f_code is code_of(ABCMeta.__instancecheck__):
        return caller.f_back or caller
    return caller


def is_concatenation(caller: FrameType) -> bool:
    return caller.f_code is code_of(ConcatDataset.__init__)


def is_random_split(caller: FrameType) -> bool:
    return caller.f_code is code_of(random_split)


def options_of_loader(caller: FrameType) -> dict[str, Any]:
    """What a DataLoader that is being made was given; nothing where it is somebody else."""
    return dict(caller.f_locals) if caller.f_code is code_of(DataLoader.__init__) else {}
