"""The state of one worker, for loaders that ask the data set in every worker (torchdata's
StatefulDataLoader). It fits only the same worker of as many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, DataError
from .epochs import Position
from .state import State, integer, make_state


@dataclass(frozen=True)
class WorkerPlace:
    """Worker ``worker`` of ``num_workers`` reads its share of an epoch from ``position`` on.

    Attributes:
        first: The worker that has the first step: 0, but where StatefulDataLoader went on after the
            end of an epoch, with the worker that comes after the last one that delivered.
        next_first: That it would go on with after this epoch.
    """

    position: Position
    worker: int
    num_workers: int
    first: int = 0
    next_first: int = 0

    @property
    def turn(self) -> int:
        """Which step is its first one."""
        return (self.worker - self.first) % self.num_workers

    def ending_after(self, steps: int) -> WorkerPlace:
        """The same, of a pass of so many steps, from its first one on."""
        return replace(self, next_first=(self.first + steps) % self.num_workers)


def make_worker_state(place: WorkerPlace, records: int, order: State, data: State) -> State:
    """Of a worker that has delivered what lies before the place."""
    state = make_state(*place.position, records, order, data)
    names = ("worker", "num_workers", "first", "next_first")
    return {**state, **{name: getattr(place, name) for name in names}}


def read_worker_place(state: Any, here: WorkerPlace) -> WorkerPlace:
    """The place of a state that is of this worker. States of version 0.1.0 say nothing of turns,
    which was right within an epoch."""
    refuse_other_worker(state, here)
    turns = {name: integer(state, name) for name in ("first", "next_first") if name in state}
    for name, worker in turns.items():
        if worker >= here.num_workers:
            raise DataError(f"damaged state: {name!r} is {worker}, of {here.num_workers} workers")
    return replace(here, first=turns.get("first", 0), next_first=turns.get("next_first", 0))


def refuse_other_worker(state: Any, here: WorkerPlace) -> None:
    """Raises ConfigError for a state that is not of this worker."""
    if "worker" not in state:
        raise ConfigError(
            "a worker was given the state of a whole data set: load that one before the loader "
            "starts its workers, on the data set or on torch_s3io.DataLoader"
        )
    worker, num_workers = integer(state, "worker"), integer(state, "num_workers")
    if (worker, num_workers) != (here.worker, here.num_workers):
        raise ConfigError(
            f"worker {here.worker} of {here.num_workers} was given the state of worker {worker} of "
            f"{num_workers}: use as many workers as when it was saved (torch_s3io.DataLoader's "
            "states do without)"
        )


def refuse_worker_state(state: Any) -> None:
    """Raises ConfigError for the state of a worker, outside of one."""
    if isinstance(state, Mapping) and "worker" in state:
        raise ConfigError(
            "this is the state of one worker: load it through the loader that saved it "
            "(torchdata's StatefulDataLoader)"
        )
