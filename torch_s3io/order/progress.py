"""One pass over an epoch, and how far it came."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ..errors import DataError
from .teams import Position

# A loop that was given up after so many batches may have been a look at them.
_LOOK = 4


class Plan(Protocol):
    """What progress needs of a _C.EpochPlan."""

    @property
    def num_steps(self) -> int: ...
    def consumed_after(self, steps: int) -> int: ...


class Progress:
    """How many steps of a plan the loop has received. A step is a batch of every rank.

    Args:
        on_end: Called when the loop has come to the end of the epoch.

    Attributes:
        position: Where the pass began.
        plan: Of this rank, all workers together.
        steps: Received by the loop since then.
    """

    def __init__(
        self, position: Position, plan: Plan, on_end: Callable[[], None] | None = None
    ) -> None:
        self.position = position
        self.plan = plan
        self.steps = 0
        self._taken = 0  # by whoever hands batches to the loop
        self._lost_after: int | None = None
        self._on_end = on_end
        self._has_ended = False
        self._reader: weakref.ref[Any] | None = None

    def take(self) -> None:
        """A batch is on its way to the loop."""
        self._taken += 1

    def count(self) -> None:
        """The loop has received one."""
        self.steps += 1

    def end(self) -> None:
        """The loop has received all of them, and knows it."""
        is_first = not self._has_ended and self._lost_after is None
        self._has_ended = True
        if is_first and self._on_end is not None:
            self._on_end()

    def fail(self) -> None:
        """A batch was lost. Where those before it end is still known."""
        if self._lost_after is None:
            self._lost_after = self._taken

    def read_by(self, reader: Any) -> None:
        """Of what the loop gets the batches."""
        self._reader = weakref.ref(reader)

    @property
    def was_a_look(self) -> bool:
        """Whether the pass was given up after its first batches."""
        is_given_up = self._reader is not None and self._reader() is None
        return is_given_up and not self._has_ended and 0 < self.steps <= _LOOK

    @property
    def consumed(self) -> int:
        """Positions of the epoch that are done, over all ranks.

        Raises:
            DataError: The loop went on after an error, and it is not known which batch it lost.
        """
        if self._lost_after is not None and self.steps > self._lost_after:
            raise DataError(
                "this epoch lost a batch to an error and went on, so its place is not known: load "
                "an earlier state, or save in the next epoch"
            )
        return int(self.plan.consumed_after(self.steps))


# Begins a pass: its batches, and how far it comes, unless somebody else counts that.
Begin = Callable[[], tuple[Iterator[Any], Progress | None]]


class Counting(Protocol):
    """What is told what the loop received, by who takes batches ahead of it."""

    def count(self) -> None:
        """A batch."""

    def end(self) -> None:
        """All of them."""


class Pass:
    """An iterator that counts what it yields. Begins with its first batch, or before.

    Args:
        begin: Called before the first batch.

    Attributes:
        on_begin: Is told then what counts.
    """

    def __init__(self, begin: Begin) -> None:
        self._begin: Begin | None = begin
        self._batches: Iterator[Any] = iter(())
        self.progress: Progress | None = None
        self.on_begin: Callable[[Progress], None] | None = None
        self._counts = True

    def __iter__(self) -> Pass:
        return self

    def begin(self) -> None:
        """Once; where it fails, anew."""
        if self._begin is None:
            return
        self._batches, self.progress = self._begin()
        self._begin = None
        if self.progress is not None:
            self.progress.read_by(self)
            if self.on_begin is not None:
                self.on_begin(self.progress)

    def __next__(self) -> Any:
        batch = self._take()
        if self._counts:
            self.count()
        return batch

    def _take(self) -> Any:
        """The next one, which the loop has not received yet."""
        self.begin()
        try:
            batch = next(self._batches)
        except StopIteration:
            if self._counts:
                self.end()
            raise
        except BaseException:
            if self.progress is not None:
                self.progress.fail()
            raise
        if self.progress is not None:
            self.progress.take()
        return batch

    def count_on_hand_out(self) -> Counting:
        """For who takes batches ahead of the loop, and says what the loop received."""
        self._counts = False
        return self

    def count(self) -> None:
        if self.progress is not None:
            self.progress.count()

    def end(self) -> None:
        if self.progress is not None:
            self.progress.end()

    def close(self) -> None:
        """Stops reading; there are no more batches."""
        self._begin = None
        self._batches = iter(())
