"""In which order records come, and which records a view of a data set has."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from .. import _C
from ..config import check_int
from ..errors import ConfigError
from ..wording import short

Shuffle = bool | Literal["block"]
# A view's records: numbers [offset, offset + count) of what it is a view of, after permuting those
# where there is (size, key). Of a view of a view, the stage of the outer view comes first.
Stage = tuple[int, int, tuple[int, int] | None]

_LAST_EPOCH = (1 << 48) - 1
MOST_MIXED = 1 << 61  # positions of a mixture's epochs, one after the other


def check_order(shuffle: Any, seed: Any, block_records: Any, window_blocks: Any) -> None:
    """Raises ConfigError for settings that are no order."""
    if not isinstance(shuffle, bool) and (not isinstance(shuffle, str) or shuffle != "block"):
        raise ConfigError(f"shuffle must be True, False or 'block', not {short(shuffle)}")
    check_seed(seed)
    if block_records is not None:
        check_int("block_records", block_records, 1)
        if shuffle != "block":
            raise ConfigError(f"block_records={block_records} needs shuffle='block'")
    check_int("window_blocks", window_blocks, 1)
    if window_blocks > 1 and shuffle != "block":
        raise ConfigError(f"window_blocks={window_blocks} needs shuffle='block'")


def check_seed(seed: Any) -> int:
    """The seed as a plain int, also where it is one of numpy's."""
    if not isinstance(seed, bool) and hasattr(seed, "__index__"):
        number = operator.index(seed)
        if 0 <= number < 1 << 64:
            return number
    raise ConfigError(f"seed must be an integer from 0 to 2**64 - 1, not {short(seed)}")


def default_block_records(stride_bytes: int, block_bytes: int) -> int:
    return max(1, block_bytes // stride_bytes)


@dataclass(frozen=True)
class Window:
    """``records`` that come mixed, in the files blocks of ``block_records``."""

    records: int
    block_records: int


@dataclass(frozen=True)
class Order:
    """Which record comes when, as a recipe: small, and pickled where _C.RecordOrder is not.

    Attributes:
        num_records: Per epoch.
        block_records: With ``shuffle="block"``.
        window_blocks: With ``shuffle="block"``: so many blocks are mixed.
        view: Where only some records of the files belong to it, or others number them.
    """

    num_records: int
    shuffle: Shuffle = False
    seed: int = 0
    block_records: int = 1
    window_blocks: int = 1
    view: tuple[Stage, ...] = ()

    @property
    def differs_by_epoch(self) -> bool:
        return self.shuffle is not False

    @property
    def last_epoch(self) -> int:
        """That may be asked for."""
        return _LAST_EPOCH

    @property
    def neighbours(self) -> int:
        """Records that come one after the other as they lie in the files."""
        if any(permutation is not None for _, _, permutation in self.view):
            return 1
        if self.shuffle == "block" and self.window_blocks == 1:
            return self.block_records
        return 1 if self.shuffle else self.num_records

    @property
    def window(self) -> Window | None:
        """What is mixed, where its blocks lie in the files as blocks."""
        if self.window_blocks == 1 or any(permutation for _, _, permutation in self.view):
            return None
        return Window(self._mixed_records, self.block_records)

    @property
    def _mixed_records(self) -> int:
        return min(self.window_blocks * self.block_records, self.num_records)

    def make(self) -> _C.RecordOrder:
        """Gives the records the numbers that they have in the files."""
        if self.shuffle == "block":
            order = _C.RecordOrder.block(self.num_records, self.block_records, self.seed)
            if self.window_blocks > 1:
                order = order.windowed(self._mixed_records, self.seed)
        elif self.shuffle:
            order = _C.RecordOrder.shuffled(self.num_records, self.seed)
        else:
            order = _C.RecordOrder.sequential(self.num_records)
        return order.select(stages=list(self.view)) if self.view else order

    def settings(self) -> dict[str, Any]:
        """For a state, in the types of JSON."""
        settings: dict[str, Any] = {"shuffle": self.shuffle, "seed": self.seed}
        if self.shuffle == "block":
            settings["block_records"] = self.block_records
            settings["window_blocks"] = self.window_blocks
        return settings

    def records(self) -> Any:
        """Which records there are, for a fingerprint."""
        return self.view


@dataclass(frozen=True)
class StreamOrder(Order):
    """Windows of a stream of documents. These come in an order of their own in every epoch, and so
    the records of an epoch have numbers of their own: window w of epoch e is ``e * num_records +
    w``. Here windows are mixed with those near to them.

    Attributes:
        block_records: Documents in a block.
        window_blocks: So many blocks' windows are mixed.
        view: Of documents: which of them are in the stream.
        block_windows: In a block, on average.
        num_numbers: All are less than that.
    """

    block_windows: int = 1
    num_numbers: int = 1

    @property
    def last_epoch(self) -> int:
        return min(_LAST_EPOCH, self.num_numbers // self.num_records - 1)

    @property
    def neighbours(self) -> int:
        return 1 if self.shuffle else self.num_records

    @property
    def window(self) -> Window | None:
        if not self.shuffle:
            return None
        return Window(self._mixed_records, min(self.block_windows, self._mixed_records))

    @property
    def _mixed_records(self) -> int:
        return min(self.window_blocks * self.block_windows, self.num_records)

    def make(self) -> _C.RecordOrder:
        order = _C.RecordOrder.sequential(self.num_records)
        if not self.shuffle:
            return order
        if self.window_blocks > 1:
            order = order.windowed(self._mixed_records, self.seed)
        return order.numbered_by_epoch(self.num_numbers)

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"shuffle": self.shuffle, "seed": self.seed}
        if self.shuffle:
            settings["block_records"] = self.block_records
            settings["window_blocks"] = self.window_blocks
        return settings


@dataclass(frozen=True)
class MixedOrder:
    """A weighted mixture of orders.

    Attributes:
        num_records: Per epoch.
        parts: Their orders.
        stored_records: Of each part: how many numbers its files' records have.
        weights: Whole numbers, in proportion.
        seed: Of the mixture.
    """

    num_records: int
    parts: tuple[Order, ...]
    stored_records: tuple[int, ...]
    weights: tuple[int, ...]
    seed: int
    differs_by_epoch = True
    window = None  # those of the parts come at other times

    @property
    def last_epoch(self) -> int:
        return min(_LAST_EPOCH, MOST_MIXED // self.num_records - 1)

    @property
    def neighbours(self) -> int:
        return min(part.neighbours for part in self.parts)

    def make(self) -> _C.RecordOrder:
        firsts = [0, *accumulate(self.stored_records)]
        return _C.RecordOrder.mix(
            parts=[(part.make(), first) for part, first in zip(self.parts, firsts, strict=False)],
            weights=list(self.weights),
            seed=self.seed,
            epoch_positions=self.num_records,
        )

    def settings(self) -> dict[str, Any]:
        return {
            "mixture": [part.settings() for part in self.parts],
            "weights": list(self.weights),
            "seed": self.seed,
        }

    def records(self) -> Any:
        return [[part.records() for part in self.parts], self.stored_records]
