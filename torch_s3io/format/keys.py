"""The names that samples have in what they were read from."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Keys(ABC):
    """Of all samples of a data set. A pickle of it is small."""

    @abstractmethod
    def of(self, numbers: Numbers) -> list[str]:
        """Those of these samples, of which each exists: int64 [B]. Bytes that are no text are as in
        ``os.fsdecode``."""


class JoinedKeys(Keys):
    """Of several data sets, one after the other.

    Args:
        parts: The keys of each, and how many samples it has.
    """

    def __init__(self, parts: Sequence[tuple[Keys, int]]) -> None:
        self._keys = [keys for keys, _ in parts]
        self._firsts = [0, *itertools.accumulate(count for _, count in parts)][:-1]

    def of(self, numbers: Numbers) -> list[str]:
        found = [""] * len(numbers)
        parts = np.searchsorted(self._firsts, numbers, side="right") - 1
        for part in np.unique(parts).tolist():
            rows = np.flatnonzero(parts == part)
            keys = self._keys[part].of(numbers[rows] - self._firsts[part])
            for row, key in zip(rows.tolist(), keys, strict=True):
                found[row] = key
        return found
