"""A data set over the records that a format found in the objects of a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any

from torch.utils.data import get_worker_info

from .. import _C
from ..errors import DataError
from ..format.records import Records
from ..order.epochs import Position
from ..order.record_order import MixedOrder, Order, Stage, default_block_records
from ..order.state import State, fingerprint
from ..processes.handover import Arena
from ..processes.ranks import Ranks
from ..store.stores import register_store, registered_stores
from ..wording import count_of
from .batches import as_numbers, as_wanted, transformed
from .described import DescribedDataset
from .options import DatasetOptions
from .runtime import Runtime
from .views import stored_numbers

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = Any  # a tensor, a dict of tensors, or what `transform` makes of them


class StoredDataset(DescribedDataset):
    """What all data sets of stored records have, whatever their format. Constructors are those of
    its subclasses."""

    @classmethod
    def _of(
        cls,
        records: Records,
        options: DatasetOptions,
        view: tuple[Stage, ...] = (),
        is_told: bool = False,
    ) -> Self:
        dataset = cls.__new__(cls)
        dataset._set_up(records, options, view, is_told=is_told)
        return dataset

    def _sibling(self, options: DatasetOptions, view: tuple[Stage, ...]) -> Self:
        is_told = options.direct == self._options.direct
        return self._of(self._records, options, view, is_told)

    def _set_up(
        self,
        records: Records,
        options: DatasetOptions,
        view: tuple[Stage, ...] = (),
        order: Order | MixedOrder | None = None,
        is_told: bool = False,  # of what the file system refuses
    ) -> None:
        self._records = records
        self._view = view
        self._stored_records = records.num_records
        if self._stored_records == 0:
            objects = records.objects
            files = count_of(len(objects), "file")
            first = f", the first being {objects.path(0)}" if objects else ""
            raise DataError(f"there are no {records.noun}s in {files}{first}: they are empty")
        # Records that have a number here; a mixture's epochs may be longer or shorter.
        self._num_numbers = view[0][1] if view else self._stored_records
        self._order = order or Order(
            self._num_numbers,
            options.shuffle,
            options.seed,
            options.block_records
            or default_block_records(records.spacing_bytes, records.block_bytes),
            options.window_blocks,
            view,
        )
        self._made_order: _C.RecordOrder | None = None
        self._set_up_epochs(options, self._order)
        self._is_told = is_told
        self._runtime: Runtime | None = None
        self._arena: Arena | None = None
        # Finds settings that cannot work now rather than in a worker: it reads nothing.
        self._own_runtime().check_pool(num_workers=1)

    def buffers_per_worker(self, num_workers: int) -> int:
        """Buffers that the pool of each of so many workers has; 0 without pools."""
        return self._own_runtime().pool_capacity(num_workers)

    # ---- The plan, for PlannedDataset.

    def _plan(self, position: Position, ranks: Ranks) -> _C.EpochPlan:
        return self._plan_of_worker(position, ranks, 0, 1, group_size=1)

    def _own_order(self) -> _C.RecordOrder:
        if self._made_order is None:
            self._made_order = self._order.make()
        return self._made_order

    def _plan_of_worker(
        self, position: Position, ranks: Ranks, worker: int, workers: int, group_size: int
    ) -> _C.EpochPlan:
        return _C.EpochPlan(
            order=self._own_order(),
            epoch=position.epoch,
            start=position.start,
            batch_size=self._options.batch_size or 1,
            drop_last=self._options.drop_last,
            pad_last=self._options.pad_last,
            rank=ranks.rank,
            world_size=ranks.world_size,
            worker=worker,
            num_workers=workers,
            group_size=group_size,
        )

    def _describe_data(self) -> State:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._records, self._order.records())
        return self._fingerprint

    def _read(self, position: Position, ranks: Ranks, worker: int, workers: int) -> Iterator[Batch]:
        runtime = self._own_runtime()
        plan = self._plan_of_worker(position, ranks, worker, workers, runtime.group_size)
        batches = runtime.iterate(plan, worker, workers, ranks.world_size)
        return as_wanted(batches, self._options, position.epoch)

    def _read_first(self, position: Position, ranks: Ranks) -> Batch:
        numbers = self._plan(position, ranks).records(0).tolist()
        batches = iter([self._own_runtime().look_at(numbers)])
        return next(as_wanted(batches, self._options, position.epoch))

    # ---- Any records, in any order.

    def get_batch(self, indices: Any) -> Batch:
        """The records of these numbers as one batch, in this order; repeats are allowed.

        Args:
            indices: int [B]: a sequence, array or tensor of numbers from 0 to ``num_records - 1``,
                in the order of the files; shuffling does not change them.

        Raises:
            RangeError: A number that does not exist.
        """
        epoch = self._current_position().epoch
        return transformed(self._options, epoch, self._fetch(indices))

    def _fetch(self, indices: Any) -> Batch:
        numbers = as_numbers(indices)
        if self._view:
            numbers = stored_numbers(self._view, self._num_numbers, numbers)
        return self._own_runtime().fetch(numbers)

    def _own_runtime(self) -> Runtime:
        """The files, buffers and counters of this process; never those of a parent."""
        if self._runtime is None or self._runtime.owner != os.getpid():
            # So many records at most are in a batch, however large batch_size is.
            most = None if self._options.pad_last else self._num_records
            self._runtime = Runtime(
                self._records,
                self._options,
                self._own_order(),
                self._arena,
                self._clock.board if get_worker_info() is not None else None,
                most_records=most,
                neighbours=self._order.neighbours,
                window=self._order.window,
                is_told=self._is_told or self._clock.owner != os.getpid(),
            )
        return self._runtime

    def _share_with_workers(self) -> None:
        """The shared memory that workers put batches into."""
        if self._arena is None or self._arena.owner != os.getpid():
            self._arena = self._own_runtime().make_arena()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        arena = self._arena if get_spawning_popen() is not None else None
        stores = registered_stores(self._records.objects.by_scheme())
        own = {"_runtime": None, "_made_order": None, "_arena": arena}
        return {**state, **own, "_stores": (os.getpid(), stores)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        process, stores = state.pop("_stores")
        if process != os.getpid():
            for scheme, store in stores.items():
                register_store(scheme, store)
        super().__setstate__(state)
