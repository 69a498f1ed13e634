"""One pass over an epoch, and how far it came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ..errors import DataError
from .epochs import Position


class Plan(Protocol):
    """What progress needs of a _C.EpochPlan."""

    @property
    def num_steps(self) -> int: ...
    def consumed_after(self, steps: int) -> int: ...


class Progress:
    """How many steps of a plan the loop has received. A step is a batch of every rank.

    Attributes:
        position: Where the pass began.
        plan: Of this rank, all workers together.
        steps: Received by the loop since then.
    """

    def __init__(self, position: Position, plan: Plan) -> None:
        self.position = position
        self.plan = plan
        self.steps = 0
        self._taken = 0  # by whoever hands batches to the loop
        self._lost_after: int | None = None

    def take(self) -> None:
        """A batch is on its way to the loop."""
        self._taken += 1

    def count(self) -> None:
        """The loop has received one."""
        self.steps += 1

    def fail(self) -> None:
        """A batch was lost. Where those before it end is still known."""
        if self._lost_after is None:
            self._lost_after = self._taken

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


class Pass:
    """An iterator that counts what it yields. Begins with its first batch.

    Args:
        begin: Called before the first batch: the batches, and what to count in.

    Attributes:
        on_begin: Is told then what counts.
    """

    def __init__(self, begin: Callable[[], tuple[Iterator[Any], Progress]]) -> None:
        self._begin: Callable[[], tuple[Iterator[Any], Progress]] | None = begin
        self._batches: Iterator[Any] = iter(())
        self.progress: Progress | None = None
        self.on_begin: Callable[[Progress], None] | None = None
        self._counts = True

    def __iter__(self) -> Pass:
        return self

    def __next__(self) -> Any:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._batches, self.progress = begin()
            if self.on_begin is not None:
                self.on_begin(self.progress)
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except BaseException:
            if self.progress is not None:
                self.progress.fail()
            raise
        if self.progress is not None:
            self.progress.take()
        if self._counts:
            self.count()
        return batch

    def count_on_hand_out(self) -> Callable[[], None]:
        """For who takes batches ahead of the loop: batches count when this is called, once each."""
        self._counts = False
        return self.count

    def count(self) -> None:
        if self.progress is not None:
            self.progress.count()

    def close(self) -> None:
        """Stops reading; there are no more batches."""
        self._begin = None
        self._batches = iter(())
