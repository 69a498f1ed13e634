"""A data set in a worker process: which share of which epoch it reads there."""

from __future__ import annotations

import os
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import ChainDataset, get_worker_info

from .. import _C
from ..errors import ConfigError
from ..order.epochs import EpochClock
from ..order.progress import Begin, Progress
from ..order.record_order import MixedOrder, Order
from ..order.state import State
from ..order.teams import Given, Position, WorkerPasses
from ..order.worker_state import WorkerPlace, make_worker_state
from ..processes.handover import announce, expect_unsent
from ..processes.ranks import Ranks
from ..torch_internals.worker_reads import Caller
from ..warning import warn
from .misuse import NotIndexed, refuse_a_place_within_a_batch, refuse_to_be_stacked
from .options import DatasetOptions

# A loop that took fewer batches of a worker, to the end of the epoch or up to a break, may have
# been a look at some batches.
_WHOLE_EPOCH = 2
_PART_OF_EPOCH = 32

# Topics of which one worker of all warns.
_REPEATED, _UNCLEAR = 0, 1


class InWorker(NotIndexed):
    """What a data set does in workers. In the main process, see PlannedDataset."""

    _options: DatasetOptions
    _order: Order | MixedOrder
    _num_records: int
    _clock: EpochClock
    _progress: Progress | None  # of the latest pass in this process
    _is_stacked: bool
    _gives_samples: bool

    def _set_up_in_worker(self) -> None:
        self._worker_place: WorkerPlace | None = None  # of the latest pass
        self._next_place: WorkerPlace | None = None  # of the next one, where it was set here
        self._is_restored = False  # from the state of a worker: the next place
        self._passes: WorkerPasses | None = None
        # Of what workers do not share out, and the change of the position that it began with.
        self._own_epochs: tuple[EpochClock, int] | None = None

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
    def _ranks(self) -> Ranks: ...

    # ---- A pass.

    def _pass_in_worker(self, caller: Caller) -> Begin:
        # Note: what goes wrong goes wrong with the first batch. Where torch's persistent workers
        # make an iterator, it would end the worker.
        if caller.kind != "other":
            expect_unsent()
        if caller.kind == "other" or self._options.shard_by_worker is False:
            return _refuse_to_read_all if caller.kind == "loader" else self._begin_for_itself
        passes = self._own_passes()
        if caller.kind == "loader" and caller.fetcher is not None:
            given = passes.begin_pass(caller.fetcher)
        else:
            given = passes.begin_within()
        if given is None:
            return _nothing_is_left
        was_sent, is_restored = self._next_place is not None, self._is_restored
        self._take_place(self._next_place or self._place_in_worker(given.position))
        is_repeated = not was_sent and passes.is_repeated(given)

        def begin() -> tuple[Iterator[Any], Progress]:
            how = self._how_unclear(caller, was_sent)
            if how:
                self._warn_of_shares(how)
            elif is_repeated:
                self._refuse_repetition(given, may_refuse=caller.kind == "loader")
            if is_restored:
                self._go_on_with_the_others()
            if self._clock.owner != os.getpid():
                announce(self._ranks())
            batches, progress = self._batches_from_place()
            return (batches if given.repeats else _Watched(batches, passes, given)), progress

        return begin

    def _take_place(self, place: WorkerPlace) -> None:
        is_restored, self._is_restored, self._next_place = self._is_restored, False, None
        self._progress = Progress(place.position, self._plan(place.position, self._ranks()))
        steps = self._progress.plan.num_steps
        self._worker_place = place if is_restored else place.ending_after(steps)

    def _batches_from_place(self) -> tuple[Iterator[Any], Progress]:
        place, progress = self._worker_place, self._progress
        assert place is not None
        assert progress is not None
        batches = self._read(place.position, self._ranks(), place.turn, place.num_workers)
        return batches, progress

    def _begin_for_itself(self) -> tuple[Iterator[Any], Progress]:
        """What this worker reads for something else counts its epochs here."""
        given = self._own_passes().now()
        if self._own_epochs is None or self._own_epochs[1] != given.change:
            self._own_epochs = EpochClock(given.position), given.change
        clock, _ = self._own_epochs
        if self._next_place is not None:
            clock.load(self._next_place.position, is_over=False)
        place = self._place_in_worker(clock.begin())
        is_shared = self._options.shard_by_worker is True
        self._take_place(place if is_shared else WorkerPlace(place.position, 0, 1))
        return self._batches_from_place()

    def _own_passes(self) -> WorkerPasses:
        if self._passes is None:
            self._passes = WorkerPasses(self._clock)
        return self._passes

    def _place_in_worker(self, position: Position) -> WorkerPlace:
        info = get_worker_info()
        assert info is not None
        if self._options.shard_by_worker is False:
            return WorkerPlace(position, 0, 1)
        return WorkerPlace(position, info.id, info.num_workers)

    # ---- What is not right, or not clear.

    def _refuse_repetition(self, given: Given, may_refuse: bool) -> None:
        advice = (
            "call set_epoch() before every epoch. Workers cannot count; only torch_s3io.DataLoader "
            "does it for them, where it has this data set itself"
        )
        if given.start > 0 and may_refuse:
            raise ConfigError(
                f"epoch {given.epoch} was resumed at record {given.start}, and would begin there "
                f"once more: {advice}"
            )
        is_same = self._order.differs_by_epoch or given.start > 0
        if is_same and self._own_passes().warn_once(_REPEATED):
            warn(f"epoch {given.epoch} is read once more, in the same order: {advice}")

    def _how_unclear(self, caller: Caller, was_sent: bool) -> str:
        """Whether it cannot be told if workers are to share this data set, which another one reads:
        how that does it."""
        if caller.kind != "wrapper" or self._options.shard_by_worker is not None:
            return ""
        info = get_worker_info()
        if info is None or isinstance(info.dataset, ChainDataset):
            return ""
        has_others = any(one is not self for one in _read_within)
        before, now = _read_within.get(self, _nobody)(), (caller.fetcher or _nobody)()
        _read_within[self] = caller.fetcher or _nobody
        if has_others:
            return "beside another one"
        return "" if was_sent or now is None or now is not before else "more than once in a pass"

    def _warn_of_shares(self, how: str) -> None:
        info = get_worker_info()
        assert info is not None
        if self._own_passes().warn_once(_UNCLEAR):
            warn(
                f"{type(info.dataset).__name__} reads {self!r} {how}, and every worker gets no "
                "more than its share of it. If each is to read all of it (references, negatives), "
                "make it with shard_by_worker=False. If they are to share it, make it with "
                "shard_by_worker=True, and call set_epoch() before it is read once more"
            )

    # ---- State.

    def _set_epoch_in_worker(self, epoch: int) -> None:
        self._next_place, self._is_restored = self._place_in_worker(Position(epoch, 0)), False

    def _state_in_worker(self) -> State:
        if self._is_stacked:  # StatefulDataLoader asks before it takes a batch
            refuse_to_be_stacked()
        if self._gives_samples:
            refuse_a_place_within_a_batch()
        place, progress = self._worker_place, self._progress
        if place is None or progress is None:
            raise ConfigError(
                "this worker has not begun to read, so it has no state yet: ask after its first "
                "batch"
            )
        # Steps go to the workers in turn: after s of its own each has left s of everybody's.
        steps = min(progress.steps * place.num_workers, progress.plan.num_steps)
        position = Position(place.position.epoch, progress.plan.consumed_after(steps))
        return make_worker_state(
            replace(place, position=position),
            self._num_records,
            self._order.settings(),
            self._describe_data(),
        )

    def _load_in_worker(self, place: WorkerPlace) -> None:
        self._next_place, self._is_restored = place, True
        whole, left = (
            self._plan(position, self._ranks()).num_steps
            for position in (Position(0, 0), place.position)
        )
        self._own_passes().note_restored(
            place.position.epoch,
            has_left=place.turn < left,
            sharing=min(place.num_workers, whole),
        )

    def _go_on_with_the_others(self) -> None:
        """After a state was restored: into the next epoch where that of the state is over."""
        place = self._worker_place
        assert place is not None
        resumed = self._own_passes().resumed(place.position)
        if resumed == place.position:
            return
        # Where not every worker has a step in every epoch, some do not know whose turn it is.
        is_known = self._plan(resumed, self._ranks()).num_steps >= place.num_workers
        first = place.next_first if is_known else 0
        self._take_place(replace(place, position=resumed, first=first))


class _Watched:
    """Batches of a worker; notes when more of them were read than a look takes."""

    def __init__(self, batches: Iterator[Any], passes: WorkerPasses, given: Given) -> None:
        self._batches = batches
        self._passes = passes
        self._given = given
        self._delivered = 0

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
        except StopIteration:
            if self._delivered >= self._passes.samples_of_look(_WHOLE_EPOCH):
                self._passes.note_read(self._given)
            raise
        self._delivered += 1
        if self._delivered == self._passes.samples_of_look(_PART_OF_EPOCH):
            self._passes.note_read(self._given)
        return batch


def _refuse_to_read_all() -> tuple[Iterator[Any], Progress]:
    raise ConfigError(
        "shard_by_worker=False: every worker would read all records of the data set that the "
        "loader reads, so each would come once per worker. Leave it None there; it is for data "
        "sets that are read for something else"
    )


def _nothing_is_left() -> tuple[Iterator[Any], Progress]:
    """Of a pass that the loader has given up."""
    raise StopIteration


def _nobody() -> None:
    return None


# In a worker: data sets that somebody's data set has read, and in which pass of the loader last.
_read_within: weakref.WeakKeyDictionary[InWorker, Any] = weakref.WeakKeyDictionary()
