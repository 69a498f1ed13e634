"""What every data set of ours has: epochs, a share of them for each rank and worker, a state."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from abc import abstractmethod
from multiprocessing.context import get_spawning_popen
from typing import Any

from torch.utils.data import get_worker_info

from .. import _C
from ..config import check_bool
from ..errors import ConfigError, Error
from ..order.epochs import EpochClock, Position
from ..order.progress import Progress
from ..order.record_order import MixedOrder, Order
from ..order.state import State, make_state, read_state, refuse_far_epoch, summary
from ..order.worker_state import read_worker_place, refuse_worker_state
from ..processes.ranks import Ranks, compare_ranks, find_ranks, read_everything
from ..torch_internals.accelerate import is_shared_out
from ..torch_internals.collation import counts_samples
from ..torch_internals.map_style import is_random_split
from ..torch_internals.worker_starts import Start, find_start, forks_a_process
from ..warning import warn
from .counting import CountingDataset
from .misuse import refuse_a_place_within_a_batch
from .options import DatasetOptions


class PlannedDataset(CountingDataset):
    """Batches of an epoch's plan. Base of RecordDataset and Zip."""

    def _set_up_epochs(self, options: DatasetOptions, order: Order | MixedOrder) -> None:
        self._options = options
        self._order = order
        self._num_records = order.num_records
        self._clock = EpochClock(Position(0, 0))
        self._carried_ranks: Ranks | None = None
        self._is_shared_out = False  # in a worker: by who started it
        self._summary: dict[str, str | bytes] | None = None
        self._fingerprint: State | None = None
        self._warned_of_copy = False
        self._warned_of_look = False
        self._warned_of_samples = False
        self._warned_of_skipping = False
        self._set_up_in_process()

    def _set_up_in_process(self) -> None:
        self._forget_progress()
        self._set_up_in_worker()
        _datasets.add(self)

    # ---- What a kind of data set says of itself.

    @abstractmethod
    def _share_with_workers(self) -> None:
        """Makes what workers share with the main process, before the first of them starts."""

    # ---- Length.

    @property
    def num_records(self) -> int:
        """Records in an epoch, over all ranks."""
        return self._num_records

    @property
    def batch_size(self) -> int | None:
        """Records per batch; None for single samples."""
        return self._options.batch_size

    @property
    def dropped_records(self) -> int:
        """Records that no rank gets, of a last step that ``drop_last`` leaves out.

        Of the epoch that began last, from where it was resumed; before the first batch, of the one
        that comes. Workers that torchdata's StatefulDataLoader resumes tell nobody: this process
        then speaks of a whole epoch.
        """
        return self._epoch_at_hand().dropped_records

    @property
    def padded_records(self) -> int:
        """Records that are delivered beyond those that were due, over all ranks, so that all ranks
        have equally many batches (or, with ``pad_last``, full ones).

        Of the same epoch as ``dropped_records``.
        """
        return self._epoch_at_hand().padded_records

    def __len__(self) -> int:
        """Batches (samples with ``batch_size=None``) of this rank in a whole epoch."""
        if is_random_split(sys._getframe(1)):
            self._refuse_numbers("random_split")
        plan = self._whole_epoch()
        batch_size = self._options.batch_size
        if batch_size is None or plan.num_steps == 0 or not counts_samples(sys._getframe(1)):
            return plan.num_steps
        return (plan.num_steps - 1) * batch_size + len(plan.records(plan.num_steps - 1))

    def _whole_epoch(self) -> _C.EpochPlan:
        return self._plan(Position(0, 0), self._ranks())

    def _epoch_at_hand(self) -> _C.EpochPlan:
        """As long as the one at the current position; its number, which may be beyond the last one
        there is, does not matter."""
        return self._plan(Position(0, self._current_position().start), self._ranks())

    def _steps_to_come(self) -> int:
        """Of the epoch that begins next."""
        return self._plan(self._own_clock().next_position(), self._ranks()).num_steps

    def _ranks(self) -> Ranks:
        in_worker = get_worker_info() is not None
        ranks = self._carried_ranks if in_worker else None
        if ranks is None:
            ranks = find_ranks(self._options.rank, self._options.world_size)
        if ranks.world_size == 1:
            return ranks
        is_shared = (in_worker and self._is_shared_out) or is_shared_out(sys._getframe())
        return read_everything(ranks) if is_shared else ranks

    def _compare_ranks(self, position: Position) -> None:
        ranks = self._ranks()
        if ranks.source == "torch.distributed":
            summary, timeout_s = self._data_summary(), self._options.rank_timeout_s
            compare_ranks(ranks, *position, summary, timeout_s)

    def _data_summary(self) -> dict[str, str | bytes]:
        if self._summary is None:
            names = ("batch_size", "drop_last", "pad_last")
            settings = {name: getattr(self._options, name) for name in names}
            settings["num_records"] = self._num_records
            settings |= self._order.settings()
            self._summary = summary(settings, self._describe_data())
        return self._summary

    # ---- State.

    def state_dict(self) -> State:
        """Where the loop is: small, for JSON, equal on all ranks.

        ``epoch``, and ``consumed``: records of it that the loop has received, over all ranks; with
        settings of the order and a fingerprint of the data, so that a state is loaded only where it
        fits. Of several loops at a time, that of the one that began last.

        Raises:
            ConfigError: Workers read the data set: the state is the loader's. Or transformers
                takes the batches apart.
        """
        if get_worker_info() is not None:
            return self._state_in_worker()
        if self._is_counted_elsewhere or self._own_clock().workers_began:
            raise ConfigError(
                "workers read this data set, so it does not know what the loop has received: ask "
                "the loader's state_dict() (torch_s3io.DataLoader, or torchdata's "
                "StatefulDataLoader)"
            )
        if self._gives_samples:
            refuse_a_place_within_a_batch()
        return self._state_of(self._progress)

    def _state_of(self, progress: Progress | None) -> State:
        """Of a pass; of the place where the next one begins if there was none."""
        epoch, consumed = self._own_clock().next_position()
        if progress is not None:
            epoch, consumed = progress.position.epoch, progress.consumed
        data = self._describe_data()
        return make_state(epoch, consumed, self._num_records, self._order.settings(), data)

    def load_state_dict(self, state: State, *, strict: bool | None = None) -> None:
        """The next iteration goes on where the state was taken.

        The records that are left come under any number of ranks and workers, and any batch size.
        A state from the end of an epoch begins the next one.

        A state fits where names, sizes and layout of the files are those that it was saved over.
        Names are relative to what ``paths`` names (a file's folder, the fixed part of a pattern),
        so files that were copied elsewhere fit. Other times of change are warned of once.

        Args:
            state: What ``state_dict()`` gave, here or on any other rank.
            strict: True: files with other times of change are refused. None: where the data set
                has ``strict_identity=True``.

        Raises:
            DataError: No state, a damaged one, or one of other data; the text says what differs.
            ConfigError: A state under other settings of the order, or of another version.
        """
        if strict is None:
            strict = self._options.strict_identity
        check_bool("strict", strict)
        is_worker = get_worker_info() is not None
        if not is_worker:
            refuse_worker_state(state)
        order, data = self._order.settings(), self._describe_data()
        position, differs = read_state(state, self._num_records, order, data, strict)
        if is_worker:
            place = read_worker_place(state, self._place_in_worker(position))
        refuse_far_epoch(position.epoch, self._order.last_epoch)
        if differs:
            self._warn_of_copy(differs)
        if is_worker:
            self._load_in_worker(place)
            return
        self._own_clock().load(position, self._is_over(position))
        self._forget_progress()

    def _is_over(self, position: Position) -> bool:
        return position.start > 0 and self._plan(position, self._ranks()).num_steps == 0

    def _warn_of_copy(self, differs: str) -> None:
        info = get_worker_info()
        if self._warned_of_copy or (info is not None and info.id != 0):
            return
        self._warned_of_copy = True
        warn(
            f"what differs from the data that the state was saved over is {differs}: the files are "
            "taken for copies, as names, sizes and layout are the same. Where the content may be "
            "another, load_state_dict(state, strict=True), or strict_identity=True in the data "
            "set, refuses such a state"
        )

    # ---- On the way to workers and copies.

    def _ready_for_process(self, start: Start | None) -> None:
        """Before a process is started: what it shares with this one, and what only this knows."""
        if get_worker_info() is not None:
            return  # its consumer is the parent
        clock = self._own_clock()
        if start is not None and start.loader.dataset is self and not clock.has_started(start):
            self._begin_where_skipped()
        try:
            clock.share()
        except Error as error:  # each team of workers can then be told of its first pass alone
            if start is not None and start.is_persistent and not clock.counts_for_workers:
                warn(
                    f"{error}: so workers that read more than one pass cannot be told of "
                    "set_epoch(), and read the same epoch in each. Give persistent_workers=False "
                    "to the DataLoader"
                )
        clock.start_worker(start)
        self._carried_ranks = find_ranks(self._options.rank, self._options.world_size)
        self._is_shared_out = is_shared_out(sys._getframe())
        self._share_with_workers()

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is not None:
            self._ready_for_process(find_start(sys._getframe()))
        return {**self.__dict__, "_progress": None, "_passes": None, "_own_epochs": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up_in_process()


# Workers that are forked inherit what exists by then.
_datasets: weakref.WeakSet[PlannedDataset] = weakref.WeakSet()


def _before_fork() -> None:
    if not forks_a_process(sys._getframe()):
        return  # no worker: the child's data sets share nothing with these
    start = find_start(sys._getframe())
    for dataset in list(_datasets):
        with contextlib.suppress(Exception):  # without shared memory batches go torch's own way
            dataset._ready_for_process(start)


os.register_at_fork(before=_before_fork)
