"""Teams of workers, and which of its passes each of them begins where."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .. import _C
    from .epochs import EpochClock


class Position(NamedTuple):
    """The first of an epoch's positions that is still to come, counted over all ranks."""

    epoch: int
    start: int


class Given(NamedTuple):
    """A position as workers are told it.

    Attributes:
        change: How often the position of the data set had been set by then.
        repeats: Whether it is meant to be read more than once: by whoever counts the epochs.
    """

    epoch: int
    start: int
    change: int
    repeats: bool

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.start)


@dataclass
class Team:
    """The workers of one iterator. Each has its copy, which its process was started with.

    Attributes:
        number: Of the data set's teams, from 1 on.
        place: On the board; None where there is none for it.
        first: Where its first pass begins.
        was_read: Whether other workers have read more than a look there.
        is_set: Whether the main process was told to go there.
        is_persistent, asked_ahead, samples: See Start.
        passes: That began: the main process and every worker count for themselves.
    """

    number: int
    place: int | None
    first: Given
    was_read: bool
    is_set: bool
    is_persistent: bool
    asked_ahead: int
    samples: int
    passes: int = 0

    def join(self, board: _C.EpochBoard, number: int, offered: Given) -> Given | None:
        """Where its pass of this number begins: there, if nobody has said so yet. None where the
        team has left that pass behind."""
        assert self.place is not None
        joined = board.join(place=self.place, team=self.number, number=number, offered=offered)
        return None if joined is None else Given(*joined)


class WorkerPasses:
    """In a worker: where its passes over one data set begin, and which of them it has read."""

    def __init__(self, clock: EpochClock) -> None:
        self._clock = clock
        self._change_read = -1
        self._reader: weakref.ref[Any] | None = None  # of the pass that began last
        self._given: Given | None = None

    def now(self) -> Given:
        """What the main process has set last."""
        board, team = self._clock.board, self._clock.team
        if board is None:  # not to be had when the workers were started
            return Given(*self._clock.position, 0, True)
        given = Given(*board.read())
        if team is None or team.place is None or team.is_set:
            return given
        epoch = board.restored_epoch(team.place)
        is_past = epoch > given.epoch and given.change == team.first.change
        return given._replace(epoch=epoch, start=0) if is_past else given

    def begin_pass(self, reader: weakref.ref[Any]) -> Given | None:
        """The loader begins its next pass, with the data set itself; None for one that its team
        has left behind. ``reader`` is an object of that pass alone: who asks once more in the same
        pass is told the same."""
        if self._reader is None or self._reader() is not reader():
            self._reader, self._given = reader, self._next_pass()
        return None if self._given is None else self._begun(self._given)

    def _next_pass(self) -> Given | None:
        board, team = self._clock.board, self._clock.team
        if team is None:
            return self.now()
        number, team.passes = team.passes, team.passes + 1
        if number == 0:
            return team.first
        if board is None or team.place is None:
            return self.now()
        return team.join(board, number, self.now())

    def begin_within(self) -> Given:
        """Somebody's data set around this one begins to read it. In which pass is not known."""
        team = self._clock.team
        lasts = team is None or team.is_persistent
        return self._begun(self.now() if lasts or team is None else team.first)

    def _begun(self, given: Given) -> Given:
        if self._clock.board is not None:
            self._clock.board.mark_begun(given.change)
        return given

    # ---- What was read: a missing set_epoch is told from a look at some batches.

    def samples_of_look(self, batches: int) -> int:
        """That this worker delivers at most where the loop takes fewer batches of it."""
        team = self._clock.team
        return batches if team is None else (team.asked_ahead + batches) * team.samples

    def is_repeated(self, given: Given) -> bool:
        """Whether this worker, or a team before its own, has read more than a look there."""
        if given.repeats:
            return False
        team = self._clock.team
        by_others = team is not None and team.was_read and given.change == team.first.change
        return by_others or given.change == self._change_read

    def note_read(self, given: Given) -> None:
        """More was read of a pass that began there than a look takes."""
        self._change_read = given.change
        if self._clock.board is not None:
            self._clock.board.mark_read(given.change)

    def warn_once(self, topic: int) -> bool:
        """True for the first worker that asks."""
        return self._clock.board is None or self._clock.board.warn_once(topic)

    # ---- States that a loader restores in each worker (torchdata's StatefulDataLoader).

    def note_restored(self, epoch: int, has_left: bool, sharing: int) -> None:
        """The state of this worker is one of ``epoch``, of which it has batches left, or none. So
        many workers have any in a whole epoch."""
        board, team = self._clock.board, self._clock.team
        if board is not None and team is not None and team.place is not None:
            board.note_restored(place=team.place, epoch=epoch, has_left=has_left, sharing=sharing)

    def resumed(self, position: Position) -> Position:
        """Where a worker goes on whose state says ``position``: with the next epoch if this one is
        over for the whole team, and set_epoch did not ask for it.

        Note: a worker that has delivered its last batch of an epoch does not know whether others
        have. StatefulDataLoader restores all of them before it asks one for a batch.
        """
        board, team = self._clock.board, self._clock.team
        if board is None or team is None or team.place is None:
            return position
        if team.is_set and team.first.epoch == position.epoch:
            return position
        epoch = board.restored_epoch(team.place)
        return Position(epoch, 0) if epoch > position.epoch else position
