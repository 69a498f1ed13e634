"""How a data set reads the objects of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _C
from ..config import DirectMode, EngineKind

if TYPE_CHECKING:
    from .store import Identity

Column = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a store is told of what will be read.

    Attributes:
        path: Of the object of a number.
        identity: The same, as it was when the data set was made.
        alignments: Of direct reads of each, in bytes; 0: there are none. int64 [n].
        devices: What each lies on, by any number: uint64 [n].
        total_bytes: Of all objects together.
        record_bytes: Of one record; where they differ, on average.
        spacing_bytes: From the start of one record to the next one's, on average.
        neighbours: Records that the order reads one after the other as they lie in an object.
        window_records: That the order mixes; 1: none.
        window_block_records: That lie one after the other in each block of what it mixes.
        direct: As the user said, like ``engine``.
        has_checksums: Whether each record of an object is compared with one, when it has come: bool
            [n].
        keeps_cached: Whether a set that fits in memory may be kept there.
        faults: A _C.FaultPlan, by which reads fail, or None.
        is_told: Another process has warned of what does not go well here.
    """

    path: Callable[[int], str]
    identity: Callable[[int], Identity]
    alignments: Column
    devices: Column
    total_bytes: int
    record_bytes: int
    spacing_bytes: int
    neighbours: int
    window_records: int
    window_block_records: int
    direct: DirectMode
    engine: EngineKind
    has_checksums: Column
    keeps_cached: bool
    faults: Any
    is_told: bool


class Access(ABC):
    """Belongs to one process and one data set.

    Attributes:
        alignment: Of buffers, in bytes, whatever will be read next: reads take whole blocks of so
            many bytes. 1: they take no more than they need.
    """

    alignment = 1

    @property
    def block_bytes(self) -> int:
        """What reads take now: ``alignment``, or 1."""
        return self.alignment

    @abstractmethod
    def make_store(self) -> _C.Store:
        """By which C++ opens and reads the objects now."""

    def make_stores(self, prefix: str) -> dict[str, _C.Store]:
        """The same by what paths begin with, of which all have this ``prefix``."""
        return {prefix: self.make_store()}

    @abstractmethod
    def check(self) -> None:
        """Before the first read: warns of what does not go as one would expect."""

    def changes_after(self, epochs: int) -> bool:
        """Told how many epochs this process has read: whether the store is to be made anew."""
        return False

    def fill_block_bytes(self, epochs: int) -> int:
        """What is brought into the page cache with a record, in the epoch after so many; 0:
        nothing."""
        return 0

    def window_to_read_ahead(self) -> int:
        """Records that are brought nearer block by block, before the order asks for them one by
        one; 0: none."""
        return 0

    @abstractmethod
    def facts(self, engine_in_use: str) -> dict[str, str]:
        """Of ``stats()``: "engine" and "direct"."""
