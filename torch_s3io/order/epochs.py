"""Where the next iteration of a data set begins, known to the main process and to its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

from .. import _C
from ..errors import ReadTimeoutError

_LONGEST_WAIT_S = 60.0
_POLL_S = 0.002


class Position(NamedTuple):
    """The first of an epoch's positions that is still to come, counted over all ranks."""

    epoch: int
    start: int


class EpochClock:
    """Which position comes next. Belongs to the process that makes it; its workers read it.

    An iteration *begins* with its first batch. Beginning one after another has begun counts the
    epoch up, whether that one came to its end or not; after ``set_epoch`` and ``load`` the next one
    begins just there. Workers cannot count: they read the position from a page of memory that the
    main process shares with them, so what it says reaches workers that are alive already.
    """

    def __init__(self, position: Position) -> None:
        self.owner = os.getpid()
        self.position = position
        self._has_begun = False
        self._loaded: Position | None = None
        self._board: _C.EpochBoard | None = None
        # Workers that were started to read from here: how many, and whether anybody still waits
        # for what they read.
        self._expected = 0
        self._is_awaited: Callable[[], bool] = lambda: False

    def share(self) -> None:
        """Makes the position visible to workers that are started from now on."""
        if self._board is None:
            self._board = _C.EpochBoard()
            self._board.set(epoch=self.position.epoch, start=self.position.start)

    @property
    def board(self) -> _C.EpochBoard | None:
        """What this process and its workers share, once there are some."""
        return self._board

    # ---- In the main process.

    @property
    def workers_began(self) -> bool:
        """Whether workers read from the current position on."""
        return self._board is not None and self._board.pick_ups > 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration begins with ``epoch``; in the middle of it where that was loaded."""
        if self._loaded is not None and self._loaded.epoch == epoch and not self._is_taken():
            self._move(self._loaded)
            return
        self._loaded = None
        self._move(Position(epoch, 0))

    def load(self, position: Position, is_over: bool) -> None:
        """The next iteration begins at ``position``; with the next epoch when this one is over."""
        self._move(Position(position.epoch + 1, 0) if is_over else position)
        self._loaded = position

    def next_position(self) -> Position:
        """Where ``begin`` would begin."""
        return Position(self.position.epoch + 1, 0) if self._is_taken() else self.position

    def begin(self) -> Position:
        """An iteration begins."""
        if self._is_taken():
            self._move(self.next_position())
        self._loaded = None
        self._has_begun = True
        return self.position

    def cancel(self) -> None:
        """What has just begun did not."""
        self._has_begun = False

    def expect(self, num_workers: int, is_awaited: Callable[[], bool]) -> None:
        """So many workers are about to read the position, as long as anybody waits for them."""
        self._expected = num_workers
        self._is_awaited = is_awaited

    def _is_taken(self) -> bool:
        return self._has_begun or self.workers_began

    def _move(self, position: Position) -> None:
        self._wait_for_workers()
        self._has_begun = False
        self._expected = 0
        self.position = position
        if self._board is not None:
            self._board.set(epoch=position.epoch, start=position.start)

    def _wait_for_workers(self) -> None:
        """Workers of an iterator that is still in use must not begin elsewhere than it did."""
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while self._board is not None and self._board.pick_ups < self._expected:
            if not self._is_awaited():
                return
            if time.monotonic() > deadline:
                raise ReadTimeoutError(
                    f"{self._expected - self._board.pick_ups} of {self._expected} workers of the "
                    f"running iterator did not begin within {_LONGEST_WAIT_S:.0f} s; the next "
                    "epoch cannot be set before"
                )
            time.sleep(_POLL_S)

    # ---- In a worker.

    def look(self) -> Position:
        """The position as the main process has set it, also since the worker was started."""
        return self.position if self._board is None else Position(*self._board.read())

    def pick_up(self, worker: int) -> tuple[Position, bool]:
        """The position, and whether a worker of this number has begun at it before."""
        if self._board is None:  # not to be had when the workers were started
            return self.position, False
        epoch, start, repeated = self._board.pick_up(worker)
        return Position(epoch, start), repeated

    def warn_once(self) -> bool:
        """True for the first worker that asks."""
        return self._board is None or self._board.warn_once()

    def __getstate__(self) -> dict[str, Any]:
        board = self._board if get_spawning_popen() is not None else None
        return {
            "owner": self.owner,
            "position": self.position,
            "fd": None if board is None else DupFd(board.fd),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["position"])  # type: ignore[misc]
        if state["fd"] is not None:
            self.owner = state["owner"]
            self._board = _C.EpochBoard.adopt(fd=state["fd"].detach())
