"""Data sets over some of the records of another one, and over the same ones under other options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import Self, Unpack

from .. import _C
from ..config import check_int
from ..errors import ConfigError, RangeError
from ..order.record_order import Order, Stage, check_seed
from ..wording import short
from .options import DatasetOptions, Options, changes_options
from .planned import PlannedDataset


class ViewedDataset(PlannedDataset):
    """A data set of which there are views: other data sets over the same files. Nothing is copied
    or stored."""

    _view: tuple[Stage, ...]

    @abstractmethod
    def _sibling(self, options: DatasetOptions, view: tuple[Stage, ...]) -> Self:
        """Another data set over the same files."""

    @changes_options
    def with_options(self, **options: Unpack[Options]) -> Self:
        """The same records under other options: those of RecordDataset from ``batch_size`` to
        ``rank_timeout_s``, but for ``header_bytes`` and ``as_dtype``. Begins at epoch 0."""
        changed = self._options.changed(self.with_options, options)
        return self._sibling(changed, self._view)

    def _with(
        self, *, reads_on: bool = True, keeps_cached: bool = True, faults: Any = None
    ) -> Self:
        """The same for benchmarks and tests. ``reads_on``: whether the next epoch's first batches
        are read before it begins; ``keeps_cached``: whether "auto" keeps a set that fits in memory
        in the page cache; ``faults``: a _C.FaultPlan, by which reads fail."""
        own = {"reads_on": reads_on, "keeps_cached": keeps_cached, "faults": faults}
        return self._sibling(replace(self._options, **own), self._view)

    @property
    def _num_viewed(self) -> int:
        """Of what views take a part."""
        return self._num_records

    def subset(self, start: int, stop: int) -> Self:
        """The records ``start`` to ``stop - 1``, as a data set with the same options."""
        return self._view_of(subset_stage(self._num_viewed, start, stop))

    def split(self, fractions: Sequence[float], seed: int = 0) -> list[Self]:
        """Disjoint random parts, as data sets with the same options.

        Which records belong to which part depends on ``seed``, the number of records and the
        fractions alone; nothing is stored. ``with_options`` changes what differs between the
        parts::

            train, test = dataset.split([0.9, 0.1])
            test = test.with_options(shuffle=False, transform=None)

        Args:
            fractions: Numbers above 0 that add up to at most 1. What is left over belongs to no
                part.
            seed: From 0 to 2**64 - 1.
        """
        stages = split_stages(self._num_viewed, fractions, seed)
        return [self._view_of(stage) for stage in stages]

    def _view_of(self, stage: Stage) -> Self:
        return self._sibling(self._options, (stage, *self._view))


def stored_numbers(view: tuple[Stage, ...], count: int, numbers: list[int]) -> list[int]:
    """The numbers that records of a view of ``count`` records have in what it is a view of."""
    order = Order(count, view=view).make()
    for number in numbers:
        if not 0 <= number < count:
            raise RangeError(
                f"record {number} does not exist: this view has {count} records, from 0 on"
            )
    return [int(order.records(0, number, 1)[0]) for number in numbers]


def subset_stage(num_records: int, start: Any, stop: Any) -> Stage:
    check_int("start", start, 0)
    check_int("stop", stop, 0)
    if not start < stop <= num_records:
        raise ConfigError(
            f"subset({start}, {stop}) of {num_records} records: start must be below stop, and stop "
            f"at most {num_records}"
        )
    return int(start), int(stop) - int(start), None


def split_stages(num_records: int, fractions: Any, seed: int) -> list[Stage]:
    """Disjoint random parts whose sizes are as near to the fractions as whole records allow: by the
    method of the largest remainder."""
    seed = check_seed(seed)
    try:
        parts = [float(fraction) for fraction in fractions]
    except (TypeError, ValueError, OverflowError):
        parts = []
    if not parts or not all(0 < part <= 1 for part in parts) or sum(parts) > 1 + 1e-9:
        raise ConfigError(
            f"split({short(fractions)}): fractions must be numbers above 0 that add up to at most "
            "1, as "
            "in split([0.9, 0.1]); subset(start, stop) takes numbers of records"
        )
    key = _C.derive_key(seed, [_C.PURPOSE_SPLIT])
    stages: list[Stage] = []
    offset = 0
    for part, count in zip(parts, split_sizes(num_records, parts), strict=True):
        if count == 0:
            raise ConfigError(
                f"split({short(fractions)}): {part} of {num_records} records is none; raise it, or "
                "leave that part out"
            )
        stages.append((offset, count, (num_records, key)))
        offset += count
    return stages


def split_sizes(num_records: int, fractions: Sequence[float]) -> list[int]:
    """Sizes by the largest remainder, in whole numbers: the same on every machine."""
    one = 1 << 53
    units = [round(fraction * one) for fraction in fractions]
    if abs(sum(units) - one) < one >> 20:  # meant to be everything
        units[units.index(max(units))] += one - sum(units)
    shares = [unit * num_records for unit in units]
    sizes = [share // one for share in shares]
    total = (sum(shares) + one // 2) // one
    by_remainder = sorted(range(len(shares)), key=lambda part: (-(shares[part] % one), part))
    for part in by_remainder[: total - sum(sizes)]:
        sizes[part] += 1
    return sizes
