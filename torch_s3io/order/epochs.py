"""Where the next pass over a data set begins, as the main process counts it."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

from .. import _C
from ..torch_internals.worker_starts import Start
from .teams import Given, Position, Team

__all__ = ["EpochClock", "Position"]


class EpochClock:
    """Which position comes next. Belongs to the process that makes it; its workers are told.

    A pass *begins* with its first batch. Beginning one after another has begun counts the epoch up,
    whether that one came to its end or not; after ``set_epoch`` and ``load`` the next one begins
    just there. While an epoch is *held*, all passes read that one. Workers cannot count: what they
    are told lies on a board that the main process shares with them.

    Attributes:
        owner: The process that counts.
        position: Where the latest pass began; where the next one begins, if there was none.
        place: What was set or loaded last, whatever passes began since: what ``holding`` holds.
        team: In a worker: that it belongs to.
    """

    def __init__(self, position: Position) -> None:
        self.owner = os.getpid()
        self.position = position
        self.place = position
        self.team: Team | None = None
        self._changes = 0  # of the position
        self._has_begun = False
        self._loop: object | None = None  # that holds the epoch
        self._was_sent_back = False  # in that loop, after a pass began
        self._is_set = False  # by somebody, and not what it is made with
        self._counts_for_workers = False
        self._loaded: Position | None = None  # as the state said, until an epoch has ended
        self._board: _C.EpochBoard | None = None
        # Of an iterator, as long as it lives; and what it is an iterator of.
        self._teams: weakref.WeakKeyDictionary[Any, tuple[Team, weakref.ref[Any]]] = (
            weakref.WeakKeyDictionary()
        )
        self._num_teams = 0

    # ---- Where passes begin, in the main process.

    def set_epoch(self, epoch: int) -> None:
        """The next pass begins with ``epoch``; in the middle of it where that was loaded, and no
        pass came to its end since."""
        if self._board is not None and self._board.was_read(self._changes):
            self._loaded = None
        if self._loaded is None or self._loaded.epoch != epoch:
            self._loaded = None
        self._send(self._loaded or Position(epoch, 0))

    def load(self, position: Position, is_over: bool) -> None:
        """The next pass begins at ``position``; with the next epoch when this one is over, unless
        just this one was set before, and is still to be read."""
        asked = self._is_set or self._is_held
        asked = asked and not self._is_taken() and self.position == (position.epoch, 0)
        self._send(Position(position.epoch + 1, 0) if is_over and not asked else position)
        self._loaded = position

    def next_position(self) -> Position:
        """Where ``begin`` would begin."""
        if not self._is_taken():
            return self.position
        return self.place if self._is_held else Position(self.position.epoch + 1, 0)

    def begin(self, for_workers: bool = False) -> Position:
        """A pass begins, here or in workers for which this process counts."""
        if self._is_taken():
            self._move(self.next_position())
        self._has_begun = True
        self._counts_for_workers = for_workers
        return self.position

    def cancel(self) -> None:
        """What has just begun did not."""
        self._has_begun = False

    def end(self, position: Position) -> None:
        """A pass that began at ``position`` came to the end of its epoch."""
        self._loaded = None
        if self.place.start > 0 and self.place == position:  # of which nothing is left
            epoch = position.epoch if self._is_held else position.epoch + 1
            self.place = Position(epoch, 0)

    @contextlib.contextmanager
    def holding(self) -> Iterator[int]:
        """Passes that begin within the block read the epoch of ``place``. Afterwards that is the
        next epoch; or what was set meanwhile, if no pass began there. To set the epoch that is held
        already, before the first pass, changes nothing."""
        self._loop = loop = object()
        self._was_sent_back = False
        self._move(self.place)
        held = self.place
        try:
            yield held.epoch
        finally:
            if self._loop is loop:  # not one that began since, while this one was left alone
                self._loop = None
        if self._is_taken() or (self.place == held and not self._was_sent_back):
            self.place = Position(self.place.epoch + 1, 0)

    @property
    def was_moved(self) -> bool:
        """Whether a pass began, or somebody said where one is to begin."""
        return self._is_set or self._changes > 0 or self._is_taken()

    @property
    def counts_for_workers(self) -> bool:
        """Whether the pass at hand is one that it counted for workers."""
        return self._counts_for_workers

    @property
    def workers_began(self) -> bool:
        """Whether workers read from the current position on."""
        return self._board is not None and self._board.has_begun

    def _is_taken(self) -> bool:
        return self._has_begun or self.workers_began

    @property
    def _is_held(self) -> bool:
        return self._loop is not None

    def _send(self, place: Position) -> None:
        self._is_set = True
        self._was_sent_back = self._was_sent_back or self._is_taken()
        self.place = place
        self._move(place)

    def _move(self, position: Position) -> None:
        self._has_begun = False
        self._counts_for_workers = False
        self.position = position
        self._changes += 1
        if self._board is not None:
            self._board.set(self._given())

    def _given(self) -> Given:
        repeats = self._is_held or self._counts_for_workers
        return Given(*self.position, self._changes, repeats)

    # ---- What workers are told.

    @property
    def board(self) -> _C.EpochBoard | None:
        """What this process and its workers share, once there are some."""
        return self._board

    def share(self) -> None:
        """Makes the position visible to workers that are started from now on."""
        if self._board is None:
            self._board = _C.EpochBoard()
            self._board.set(self._given())

    def start_worker(self, start: Start | None) -> None:
        """A process is about to be started: a worker of this iterator, or None, something else."""
        self.team = None
        if start is None:
            return
        if start.iterator not in self._teams:
            self._teams[start.iterator] = self._new_team(start), weakref.ref(start.loader)
        self.team, _ = self._teams[start.iterator]

    def has_started(self, start: Start) -> bool:
        """Whether workers of this iterator were started before."""
        return start.iterator in self._teams

    def tell_next_pass(self, iterator: Any) -> bool:
        """The next pass of this iterator's workers begins at the current position. False where
        there is no way to tell them."""
        team, _ = self._teams.get(iterator, (None, None))
        if team is None or team.place is None or self._board is None:
            return False
        team.passes += 1
        return team.join(self._board, team.passes, self._given()) is not None

    def _new_team(self, start: Start) -> Team:
        given, is_set, was_read = self._given(), self._is_set or self._is_held, False
        place = None
        if self._board is not None:
            epoch = self._restored_epoch_of(start.loader)
            if epoch > given.epoch and not is_set:
                given = given._replace(epoch=epoch, start=0)
            was_read = self._board.was_read(given.change)
            place = self._free_place()
            if place is not None:
                self._board.clear(place)
        self._num_teams += 1
        return Team(
            number=self._num_teams,
            place=place,
            first=given,
            was_read=was_read,
            is_set=is_set,
            is_persistent=start.is_persistent,
            asked_ahead=start.asked_ahead,
            samples=start.samples,
        )

    def _free_place(self) -> int | None:
        taken = {team.place for team, _ in self._teams.values()}
        return next((place for place in range(_C.EpochBoard.TEAMS) if place not in taken), None)

    def _restored_epoch_of(self, loader: Any) -> int:
        """That teams of this loader go on with, as the states of their workers say.

        Note: after a state from the end of an epoch StatefulDataLoader starts workers twice, and
        restores those that it does not use.
        """
        board, epochs = self._board, [0]
        for team, of in self._teams.values():
            if board is not None and team.place is not None and of() is loader:
                epochs.append(board.restored_epoch(team.place))
        return max(epochs)

    def __getstate__(self) -> dict[str, Any]:
        is_spawning = get_spawning_popen() is not None
        board = self._board if is_spawning else None
        return {
            "owner": self.owner if is_spawning else None,
            "position": self.position,
            "team": self.team if is_spawning else None,
            "fd": None if board is None else DupFd(board.fd),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["position"])  # type: ignore[misc]
        self.team = state["team"]
        if state["owner"] is not None:
            self.owner = state["owner"]
        if state["fd"] is not None:
            self._board = _C.EpochBoard.adopt(fd=state["fd"].detach())
