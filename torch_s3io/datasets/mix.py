"""Several data sets as one, by weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from ..config import check_int
from ..errors import ConfigError
from ..format.records import Mismatch, Records
from ..order.record_order import MOST_MIXED, MixedOrder, Order, check_seed
from ..wording import short
from .options import ORDER_OPTIONS, DatasetOptions
from .stored_dataset import StoredDataset

_DENOMINATOR = 1 << 30
_SMALLEST_SHARE = 1 / 65536


class Mix(StoredDataset):
    """A weighted mixture of data sets of one kind: one data set over the files of all.

    ::

        mix = s3io.Mix([web, books], weights=[0.9, 0.1], seed=0, num_records=10**9)

    Which part each record comes from is a function of ``seed`` and its position, so a mixture
    starts, shards and resumes like any data set, at once. In every stretch of positions each part
    has its share, but for one record: a stretch is 1024 positions, or more where weights are small.

    A part's own records come in its own order (``shuffle``, ``seed`` and views are kept), each once
    before any comes again; a part that is used up goes on with its own next epoch. The epochs of
    the mixture follow each other: what a part did not deliver in one comes in the next.

    Record numbers (``return_index``, ``get_batch``) count through the stored records of all parts,
    those of the first part first.

    Args:
        datasets: At least one, all with the same layout (dtype, shape, stride, as_dtype).
        weights: A positive number for each, at least 1/65536 of their sum. None: in proportion to
            the parts' numbers of records.
        seed: Of the mixture, from 0 to 2**64 - 1.
        num_records: Of an epoch of the mixture, up to 2**61; None: as many as the parts have
            together.
        **options: As for RecordDataset.with_options, without ``shuffle``, ``block_records``
            and ``window_blocks``. Those of the first data set hold where none are given, since a
            batch may have records of all; but parts with different transforms are refused then.
    """

    _instead_of_numbers = (
        "Its records by number are mix.get_batch([7, 3]), or those of a RecordMapDataset(mix), "
        "which samplers take; subset and split are those of its parts, which are then mixed"
    )

    def __init__(
        self,
        datasets: Sequence[StoredDataset],
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        num_records: int | None = None,
        **options: Any,
    ) -> None:
        parts = _checked_parts(datasets)
        records = _joined(parts)
        seed = check_seed(seed)
        if num_records is not None:
            num_records = check_int("num_records", num_records, 1)
            if num_records > MOST_MIXED:
                raise ConfigError(f"num_records must be at most {MOST_MIXED}, not {num_records}")
        for name in ORDER_OPTIONS:
            if name in options:
                raise ConfigError(
                    f"Mix has no {name}: its parts keep their own; set it there, with "
                    f"part.with_options({name}=...)"
                )
        if "transform" not in options:
            _refuse_different_transforms(parts)
        shares = [part.num_records for part in parts] if weights is None else weights
        order = MixedOrder(
            num_records=num_records or sum(part.num_records for part in parts),
            parts=tuple(_order_of(part) for part in parts),
            stored_records=tuple(part._stored_records for part in parts),
            weights=whole_weights(shares, len(parts)),
            seed=seed,
        )
        of_parts = DatasetOptions().only(ORDER_OPTIONS)
        mixed = parts[0]._options.changed(Mix, {**options, **of_parts, "seed": seed})
        self._set_up(records, mixed, order=order)

    @classmethod
    def _of(cls, *_: Any) -> NoReturn:  # and so no view either
        raise ConfigError(
            "a mixture is made of data sets: take views, options and formats of those, then mix"
        )


def _refuse_different_transforms(parts: list[StoredDataset]) -> None:
    transforms = [(part._options.transform, part._options.pass_position) for part in parts]
    if any(transform != transforms[0] for transform in transforms):
        raise ConfigError(
            "the parts of a Mix have different transforms, but a batch may have records of all: "
            "give the Mix a transform= of its own, or transform=None for none"
        )


def _order_of(part: StoredDataset) -> Order:
    assert isinstance(part._order, Order)
    return part._order


def _checked_parts(datasets: Any) -> list[StoredDataset]:
    if not isinstance(datasets, Sequence) or not datasets:
        raise ConfigError("Mix needs a list of data sets, at least one: Mix([web, books])")
    for number, part in enumerate(datasets):
        if not isinstance(part, StoredDataset) or isinstance(part, Mix):
            raise ConfigError(
                f"Mix mixes RecordDatasets, or SampleDatasets, and part {number} is {short(part)}; "
                "a mixture of "
                "mixtures "
                "is one Mix of all their parts"
            )
    return list(datasets)


def _joined(parts: list[StoredDataset]) -> Records:
    first, *others = [part._records for part in parts]
    try:
        for number, other in enumerate(others, 1):
            if type(other) is not type(first):
                own = [one for one in (first, other) if one.kind_advice != Records.kind_advice]
                raise Mismatch(number, own[0].kind_advice if own else Records.kind_advice)
        return first.joined(others)
    except Mismatch as error:
        raise ConfigError(
            f"the parts of a Mix have one layout, but part {error.part} is {parts[error.part]!r} "
            f"and part 0 is {parts[0]!r}; {error.advice}"
        ) from None


def whole_weights(weights: Any, count: int) -> tuple[int, ...]:
    """The weights as the smallest whole numbers in these proportions, to 30 bits."""
    try:
        numbers = [float(weight) for weight in weights]
        total = math.fsum(numbers)
    except (TypeError, ValueError, OverflowError):
        numbers, total = [], 0.0
    if len(numbers) != count or not all(0 < number < math.inf for number in numbers):
        raise ConfigError(
            f"weights must be a positive number for each of {count} parts, with a finite sum, as "
            "in "
            "weights=[0.9, 0.1]"
        )
    shares = [number / total for number in numbers]
    if min(shares) < _SMALLEST_SHARE:
        raise ConfigError(
            f"a weight of {min(numbers)} is less than 1/65536 of their sum, {total}: its data set "
            "would hardly come up; leave it out"
        )
    whole = [round(share * _DENOMINATOR) for share in shares]
    divisor = math.gcd(*whole)
    return tuple(number // divisor for number in whole)
