"""States of data sets, loaders and workers: one that is accepted is a place, and reading goes on
there; any other leaves the data set where it was."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils.data._utils import worker

from torch_s3io import DataLoader, Error, Mix, RecordDataset, Zip

TOKENS = [
    *(b'"version"', b'"epoch"', b'"consumed"', b'"records"', b'"order"', b'"data"', b'"worker"'),
    *(b'"num_workers"', b'"shuffle"', b'"seed"', b'"block"', b'"files"', b'"bytes"', b'"names"'),
    *(b'"sizes"', b'"times"', b'"layout"', b'"view"', b'"mixture"', b'"weights"'),
    *(b'"$tensor"', b'"$array"', b'"$bytes"', b'"$set"', b'"$loop"', b'"$evil"', b'"$flag"'),
    *(b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"false", b"NaN", b"281474976710655"),
]
_COUNT = 24


class _Evil:
    """Cannot be compared, shown or hashed."""

    def _refuse(self, *_: Any) -> Any:
        raise ZeroDivisionError

    __eq__ = __repr__ = __hash__ = __bool__ = __len__ = _refuse  # type: ignore[assignment]


def _loop() -> Any:
    loop: dict[str, Any] = {}
    loop["data"] = loop["order"] = loop
    return loop


# What a text in a state stands for, where JSON has no such value but a pickled checkpoint has.
_VALUES: dict[str, Callable[[], Any]] = {
    "$tensor": lambda: torch.zeros(3),
    "$array": lambda: np.arange(3),
    "$bytes": lambda: b"\xff" * 10,
    "$set": lambda: {1, "a"},
    "$loop": _loop,
    "$evil": _Evil,
    "$flag": lambda: np.bool_(True),
}


def _with_values(tree: Any, own: dict[str, Any]) -> Any:
    """Also with the reader's own values: "$order", "$data.names"."""
    if isinstance(tree, dict):
        return {key: _with_values(value, own) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_values(value, own) for value in tree]
    if not isinstance(tree, str) or not tree.startswith("$"):
        return tree
    if tree in _VALUES:
        return _VALUES[tree]()
    value: Any = own
    for key in tree[1:].split("."):
        value = value.get(key, tree) if isinstance(value, dict) else tree
    return value


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / "x.bin"
    if not path.exists():
        path.write_bytes(bytes(range(_COUNT)))
    options: dict[str, Any] = {"shuffle": True, "seed": 3, "rank": 0, "world_size": 1}
    one = RecordDataset(path, dtype="u1", batch_size=4, **options)
    other = RecordDataset(path, dtype="u1", batch_size=4, shuffle="block", block_records=5)
    in_worker = RecordDataset(path, dtype="u1", batch_size=4, **options)
    readers = [
        one,
        Mix([one, other], weights=[2, 1], num_records=_COUNT, batch_size=4, seed=1),
        Zip(a=one, b=other),
        DataLoader(one),
    ]
    repr(torch.zeros(3))  # imports what torch needs for it, which is no input's doing
    warnings.filterwarnings("ignore", ".*(times of change|copy)")

    def read(data: bytes) -> None:
        try:
            tree = json.loads(data)
            states = [_with_values(tree, reader.state_dict()) for reader in readers]
        except (ValueError, RecursionError):  # no value that a checkpoint could hold
            return
        refusals = [_load(*pair) for pair in zip(readers, states, strict=True)]
        _load_in_worker(in_worker, states[0])
        if all(refusals):
            raise next(refusal for refusal in refusals if refusal is not None)

    return read


def _load(reader: Any, state: Any) -> Error | None:
    before = reader.state_dict()
    try:
        reader.load_state_dict(state)
    except Error as error:
        assert reader.state_dict() == before
        return error
    epoch, consumed = state["epoch"], state["consumed"]
    assert isinstance(epoch, int)
    assert isinstance(consumed, int)
    place = reader.state_dict()
    assert _next_of(place) == _next_of(state), (place, state)
    if consumed % 7 == 1:  # reading takes long
        left = [batch for batch in reader]
        count = sum(len(batch["a"] if isinstance(batch, dict) else batch) for batch in left)
        assert count == place["records"] - place["consumed"]
    reader.set_epoch(0)
    return None


def _next_of(state: Any) -> tuple[int, int]:
    """Epoch and record that come next."""
    epoch, consumed = state["epoch"], state["consumed"]
    return (epoch + 1, 0) if 0 < consumed == state["records"] else (epoch, consumed)


def _load_in_worker(dataset: RecordDataset, state: Any) -> None:
    """As worker 1 of 2 does under torchdata's loader."""
    info = worker.WorkerInfo(id=1, num_workers=2, seed=0, dataset=dataset)
    with mock.patch.object(worker, "_worker_info", info), contextlib.suppress(Error):
        dataset.load_state_dict(state)
        iter(dataset)
        place = dataset.state_dict()
        for key in ("epoch", "consumed", "worker", "num_workers"):
            assert place[key] == state[key], (place, state)
