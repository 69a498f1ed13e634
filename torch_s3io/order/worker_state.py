"""The state of one worker, for loaders that ask the data set in every worker (torchdata's
StatefulDataLoader). It fits only the same worker of as many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .epochs import Position
from .state import State, integer, make_state


@dataclass(frozen=True)
class WorkerPlace:
    """Worker ``worker`` of ``num_workers`` reads its share of an epoch from ``position`` on."""

    position: Position
    worker: int
    num_workers: int


def make_worker_state(place: WorkerPlace, records: int, order: State, data: State) -> State:
    """Of a worker that has delivered what lies before the place."""
    state = make_state(*place.position, records, order, data)
    return {**state, "worker": place.worker, "num_workers": place.num_workers}


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
