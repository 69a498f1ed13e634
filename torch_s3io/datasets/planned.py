"""What every data set of ours has: epochs, a share of them for each rank and worker, a state."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from multiprocessing.context import get_spawning_popen
from multiprocessing.popen_fork import Popen
from types import FrameType
from typing import Any

from torch.utils.data import get_worker_info

from .. import _C
from ..config import check_bool, check_int
from ..errors import ConfigError
from ..order.epochs import EpochClock, Position
from ..order.progress import Pass, Progress
from ..order.record_order import MixedOrder, Order
from ..order.state import State, make_state, read_state, refuse_far_epoch, summary
from ..order.worker_state import (
    WorkerPlace,
    make_worker_state,
    refuse_other_worker,
    refuse_worker_state,
)
from ..processes.handover import announce
from ..processes.ranks import Ranks, compare_ranks, find_ranks
from ..warning import warn
from .misuse import NotIndexed, is_random_split, refuse_to_be_stacked, would_stack
from .options import DatasetOptions


class PlannedDataset(NotIndexed):
    """Batches of an epoch's plan. Base of RecordDataset and Zip."""

    def _set_up_epochs(self, options: DatasetOptions, order: Order | MixedOrder) -> None:
        self._options = options
        self._order = order
        self._num_records = order.num_records
        self._clock = EpochClock(Position(0, 0))
        self._carried_ranks: Ranks | None = None
        self._summary: dict[str, str | bytes] | None = None
        self._fingerprint: State | None = None
        self._warned_of_copy = False
        self._forget_progress()
        _datasets.add(self)

    def _forget_progress(self) -> None:
        self._progress: Progress | None = None  # of the latest pass in this process
        self._worker_place: WorkerPlace | None = None  # in a worker: of the latest pass
        self._next_place: WorkerPlace | None = None  # in a worker: of the next one, where set
        self._is_counted_elsewhere = False  # by a DataLoader, for its workers
        self._is_stacked = False  # by a DataLoader that should not

    # ---- What a kind of data set says of itself.

    @abstractmethod
    def _read(self, position: Position, ranks: Ranks, worker: int, workers: int) -> Iterator[Any]:
        """The worker's batches from ``position`` on, as the loop gets them."""

    @abstractmethod
    def _plan(self, position: Position, ranks: Ranks) -> _C.EpochPlan:
        """The rank's batches from ``position`` on."""

    @abstractmethod
    def _describe_data(self) -> State:
        """What tells this data set from another one, for JSON."""

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
        return self._whole_epoch().num_steps

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
        if get_worker_info() is not None and self._carried_ranks is not None:
            return self._carried_ranks
        return find_ranks(self._options.rank, self._options.world_size)

    # ---- Epochs.

    @property
    def epoch(self) -> int:
        """The epoch that is being read; before its first batch, the one that comes next. In a
        worker, that of the batches it makes: for a ``transform``, for instance."""
        return self._current_position().epoch

    def _current_position(self) -> Position:
        """Where the epoch began that is being read; before its first batch, the one that comes."""
        if get_worker_info() is None:
            return self._own_clock().position
        place = self._worker_place
        return self._clock.look() if place is None else place.position

    def _next_epoch(self) -> int:
        return self._own_clock().next_position().epoch

    def set_epoch(self, epoch: int) -> None:
        """The next iteration reads this epoch, at most 2**48 - 1 (less for a Mix whose epochs are
        long). Reaches workers that are alive already.

        Needed before each epoch under torch's DataLoader with workers, which cannot count; without
        workers, and in torch_s3io.DataLoader, epochs count up by themselves. After
        ``load_state_dict``, setting the epoch that was loaded keeps the place within it.

        With torch.distributed every rank must call it, with the same value.
        """
        epoch = check_int("epoch", epoch, 0)
        if epoch > self._order.last_epoch:
            raise ConfigError(f"epoch must be at most {self._order.last_epoch}, not {epoch}")
        if get_worker_info() is not None:
            self._next_place = self._place_in_worker(Position(epoch, 0))
            return
        clock = self._own_clock()
        clock.set_epoch(epoch)
        self._forget_progress()
        self._compare_ranks(clock.position)

    def _own_clock(self) -> EpochClock:
        """A process that was forked for something else has an epoch of its own."""
        if self._clock.owner != os.getpid() and get_worker_info() is None:
            self._clock = EpochClock(self._clock.position)
        return self._clock

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

    # ---- Iteration.

    def __iter__(self) -> Iterator[Any]:
        makes_batches = self._options.batch_size is not None
        self._is_stacked = makes_batches and would_stack(sys._getframe(1))
        if self._is_stacked:
            return Pass(refuse_to_be_stacked)
        if get_worker_info() is None:
            return Pass(self._begin)
        place, is_repeated = self._pick_up()
        ranks = self._ranks()
        progress = Progress(place.position, self._plan(place.position, ranks))
        self._worker_place, self._progress = place, progress

        # Note: what goes wrong goes wrong with the first batch. Where torch's persistent workers
        # make an iterator, it would end the worker.
        def begin() -> tuple[Iterator[Any], Progress]:
            if is_repeated:
                self._refuse_repetition(place.position)
            if self._clock.owner != os.getpid():
                announce(ranks)
            return self._read(place.position, ranks, place.worker, place.num_workers), progress

        return Pass(begin)

    def _begin(self) -> tuple[Iterator[Any], Progress]:
        progress = self._begin_epoch()
        return self._read(progress.position, self._ranks(), 0, 1), progress

    def _begin_epoch(self) -> Progress:
        """In the main process: the next iteration begins, here or in workers."""
        clock = self._own_clock()
        last = self._order.last_epoch
        if clock.next_position().epoch > last:
            raise ConfigError(f"epoch {last} is the last one there is: set_epoch() goes back")
        self._compare_ranks(clock.next_position())
        position = clock.begin()
        self._is_counted_elsewhere = False
        self._progress = Progress(position, self._plan(position, self._ranks()))
        return self._progress

    def _begin_for_workers(self) -> Progress:
        """The same, for a loader that counts for its workers."""
        progress = self._begin_epoch()
        self._is_counted_elsewhere = True
        return progress

    def _pick_up(self) -> tuple[WorkerPlace, bool]:
        """Where this worker begins, and whether it has begun there before without being sent."""
        info = get_worker_info()
        assert info is not None
        position, is_repeated = self._clock.pick_up(info.id)
        place, self._next_place = self._next_place, None
        if place is not None:
            return place, False
        return self._place_in_worker(position), is_repeated

    def _place_in_worker(self, position: Position) -> WorkerPlace:
        info = get_worker_info()
        assert info is not None
        return WorkerPlace(position, info.id, info.num_workers)

    def _refuse_repetition(self, position: Position) -> None:
        advice = (
            "call set_epoch() before every epoch. Workers cannot count; only torch_s3io.DataLoader "
            "does it for them, where it has this data set itself"
        )
        if position.start > 0:
            raise ConfigError(
                f"epoch {position.epoch} was resumed at record {position.start}, and would begin "
                f"there once more: {advice}"
            )
        if self._order.differs_by_epoch and self._clock.warn_once():
            warn(f"epoch {position.epoch} is read once more, in the same order: {advice}")

    # ---- State.

    def state_dict(self) -> State:
        """Where the loop is: small, for JSON, equal on all ranks.

        ``epoch``, and ``consumed``: records of it that the loop has received, over all ranks; with
        settings of the order and a fingerprint of the data, so that a state is loaded only where it
        fits. Of several loops at a time, that of the one that began last.

        Raises:
            ConfigError: Workers read the data set: the state is the loader's.
        """
        if get_worker_info() is not None:
            if self._is_stacked:  # StatefulDataLoader asks before it takes a batch
                refuse_to_be_stacked()
            place, progress = self._worker_place, self._progress
            if place is None or progress is None:
                raise ConfigError("this worker has not begun to read, so it has no state yet")
            # Steps go to the workers in turn: after s of its own each has left s of everybody's.
            steps = min(progress.steps * place.num_workers, progress.plan.num_steps)
            position = Position(place.position.epoch, progress.plan.consumed_after(steps))
            return make_worker_state(
                self._place_in_worker(position),
                self._num_records,
                self._order.settings(),
                self._describe_data(),
            )
        if self._is_counted_elsewhere or self._own_clock().workers_began:
            raise ConfigError(
                "workers read this data set, so it does not know what the loop has received: ask "
                "the loader's state_dict() (torch_s3io.DataLoader, or torchdata's "
                "StatefulDataLoader)"
            )
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
        saved = read_state(state, self._num_records, order, data, strict)
        position = Position(saved.epoch, saved.consumed)
        if is_worker:
            refuse_other_worker(state, self._place_in_worker(position))
        refuse_far_epoch(position.epoch, self._order.last_epoch)
        if saved.differs:
            self._warn_of_copy(saved.differs)
        if is_worker:
            self._next_place = self._place_in_worker(position)
            return
        is_over = position.start > 0 and self._plan(position, self._ranks()).num_steps == 0
        self._own_clock().load(position, is_over)
        self._forget_progress()

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

    def _ready_for_workers(self) -> None:
        """Before workers start: what they share with this process, and what only it knows."""
        if get_worker_info() is not None:
            return  # its consumer is the parent
        self._own_clock().share()
        self._share_with_workers()
        self._carried_ranks = find_ranks(self._options.rank, self._options.world_size)

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is not None:
            self._ready_for_workers()
        return {**self.__dict__, "_progress": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_progress()
        _datasets.add(self)


# Workers that are forked inherit what exists by then.
_datasets: weakref.WeakSet[PlannedDataset] = weakref.WeakSet()


def _before_fork() -> None:
    if not _is_start_of_a_process(sys._getframe(1)):
        return  # no worker: the child's data sets share nothing with these
    for dataset in list(_datasets):
        # Without shared memory batches go torch's own way, and epochs do not count.
        with contextlib.suppress(Exception):
            dataset._ready_for_workers()


def _is_start_of_a_process(frame: FrameType | None) -> bool:
    """Whether multiprocessing is forking, as torch's loaders have it do."""
    while frame is not None and frame.f_code is not Popen.__init__.__code__:
        frame = frame.f_back
    return frame is not None


os.register_at_fork(before=_before_fork)
