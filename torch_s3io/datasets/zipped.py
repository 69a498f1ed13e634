"""Parallel data sets, read together in one order."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, NoReturn

from .. import _C
from ..errors import ConfigError
from ..order.epochs import Position
from ..order.record_order import StreamOrder, default_block_records
from ..order.state import State
from ..processes.ranks import Ranks
from ..wording import short
from .batches import transformed
from .mix import Mix
from .options import PLAN_OPTIONS
from .planned import PlannedDataset
from .stored_dataset import StoredDataset

_OF_PARTS = ("subset", "split", "with_options", "get_batch")
_OWN = ("transform", "pass_position", "return_index")


class Zip(PlannedDataset):
    """Parallel RecordDatasets of equally many records, as one batch: a dict by their names.

    ::

        pairs = s3io.Zip(images=images, labels=labels, batch_size=64, shuffle=True)
        for batch in s3io.DataLoader(pairs, num_workers=2):
            step(batch["images"], batch["labels"])

    Record i of one goes with record i of the others. Epochs, shares of ranks and workers, and state
    are as in a RecordDataset, and batches from workers are not copied either: each part has a pool
    of its own. Views are taken of the parts: a Zip has no ``subset``, ``split``, ``with_options``
    and ``get_batch``.

    Args:
        **arguments: The data sets by name; views are fine. And options of RecordDataset:
            ``batch_size``, ``drop_last``, ``pad_last``, ``shuffle``, ``seed``, ``block_records``,
            ``window_blocks``, ``rank``, ``world_size``, ``shard_by_worker``, ``strict_identity``,
            ``rank_timeout_s``
            (else those of the first data set hold; those of the others do not matter);
            ``transform``, called with the dict of what the parts' own transforms made,
            ``pass_position`` and ``return_index``, which give the numbers of the first data set's
            records.
    """

    _instead_of_numbers = (
        "Take subset, split, get_batch or a RecordMapDataset of each of its parts; subsets, and "
        "splits of one seed, go together in another Zip"
    )

    def __init__(self, **arguments: Any) -> None:
        given = {k: part for k, part in arguments.items() if isinstance(part, PlannedDataset)}
        changes = {k: value for k, value in arguments.items() if k not in given}
        parts = _checked_parts(given)
        for name, value in changes.items():
            if name not in (*PLAN_OPTIONS, *_OWN):
                nearest = difflib.get_close_matches(name, (*PLAN_OPTIONS, *_OWN), 1)
                advice = (
                    f"did you mean {nearest[0]!r}?"
                    if nearest
                    else f"it is a {type(value).__name__}. A Zip has data sets: write other data "
                    "with RecordWriter, or numpy.save and RecordDataset.from_npy"
                )
                raise ConfigError(
                    f"Zip: {name!r} is neither a RecordDataset nor an option of Zip; {advice}"
                )
        first = next(iter(parts.values()))
        own = {"transform": None, "pass_position": False, "return_index": False}
        options = first._options.changed(Zip, {**own, **changes})
        if options.shuffle == "block" and options.block_records is None:
            together = sum(part._records.spacing_bytes for part in parts.values())
            block = default_block_records(together, first._records.block_bytes)
            options = options.changed(Zip, {"block_records": block})
        shared = options.only(PLAN_OPTIONS)
        self._parts = {
            name: part.with_options(
                **shared, return_index=number == 0 and options.with_record_numbers
            )
            for number, (name, part) in enumerate(parts.items())
        }
        self._set_up_epochs(options, next(iter(self._parts.values()))._order)

    def buffers_per_worker(self, num_workers: int) -> int:
        """Buffers that each pool of each of so many workers has, at least; 0 without pools."""
        return min(part.buffers_per_worker(num_workers) for part in self._parts.values())

    def stats(self) -> dict[str, Any]:
        """As RecordDataset.stats, added up over the parts; ``batches`` are those of all parts."""
        total: dict[str, Any] = {}
        for part in self._parts.values():
            for key, value in part.stats().items():
                if isinstance(value, str):
                    same = total.setdefault(key, value) == value
                    total[key] = value if same else "mixed"
                else:
                    total[key] = total.get(key, 0) + value
        total["dropped_records"] = self.dropped_records
        total["padded_records"] = self.padded_records
        return total

    def _plan(self, position: Position, ranks: Ranks) -> _C.EpochPlan:
        return next(iter(self._parts.values()))._plan(position, ranks)

    def _describe_data(self) -> State:
        return {name: part._describe_data() for name, part in self._parts.items()}

    def _share_with_workers(self) -> None:
        """Its parts do, each for itself."""

    def _read_first(self, position: Position, ranks: Ranks) -> Any:
        batches = {
            name: iter([part._read_first(position, ranks)]) for name, part in self._parts.items()
        }
        return next(_Together(self, batches, position.epoch))

    def _read(self, position: Position, ranks: Ranks, worker: int, workers: int) -> Iterator[Any]:
        readers = {
            name: part._read(position, ranks, worker, workers) for name, part in self._parts.items()
        }
        return _Together(self, readers, position.epoch)

    def __getattr__(self, name: str) -> NoReturn:
        if name in _OF_PARTS:
            raise AttributeError(
                f"a Zip has no {name}: call it on its parts, then zip what it gives"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={part!r}" for name, part in self._parts.items())
        return f"Zip({parts})"


class _Together:
    """Takes one batch of each reader at a time; holds none of them."""

    def __init__(self, dataset: Zip, readers: dict[str, Iterator[Any]], epoch: int) -> None:
        self._options = dataset._options
        self._readers = readers
        self._epoch = epoch

    def __iter__(self) -> _Together:
        return self

    def __next__(self) -> Any:
        try:
            batch = {name: next(reader) for name, reader in self._readers.items()}
        except BaseException:
            self._readers = {}  # the end; or an error, after which they are no longer in step
            raise
        if not self._readers:
            raise StopIteration
        if not self._options.with_record_numbers:
            return transformed(self._options, self._epoch, batch)
        first = next(iter(batch))
        batch[first], index = batch[first]
        return transformed(self._options, self._epoch, (batch, index))


def _checked_parts(given: dict[str, Any]) -> dict[str, StoredDataset]:
    if not given:
        raise ConfigError("Zip needs data sets by name: Zip(images=..., labels=...)")
    for name, part in given.items():
        if not isinstance(part, StoredDataset) or isinstance(part, Mix):
            raise ConfigError(
                f"Zip zips RecordDatasets and SampleDatasets, and {name} is {short(part)}; a Mix "
                "or a Zip cannot be part"
            )
    for name, part in given.items():
        if isinstance(part._order, StreamOrder):
            raise ConfigError(
                f"Zip pairs records by their numbers, and {name} has windows of documents, which "
                "are others in every epoch: documents='single' can be a part, or "
                "RecordDataset.from_tokens"
            )
    counts = {name: part.num_records for name, part in given.items()}
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"the data sets of a Zip have equally many records, not {counts}; "
            "dataset.subset(0, count) takes as many of a longer one"
        )
    return given
