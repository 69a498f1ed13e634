"""Workers that begin late join the pass that they were started for, whatever was set since."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from order_check import Setting, batches_of, numbers, write_numbers
from support import QUICK_CONTEXTS, raise_warnings
from torch.utils.data import DataLoader, get_worker_info

import torch_s3io as s3io

SETTING = Setting(records=60, batch=4, seed=3, shuffle=True, others={"pool": "auto"})
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def epoch_of(path: Path, epoch: int, start: int = 0) -> list[list[int]]:
    return batches_of(path, SETTING, epoch, start)


class Gate:
    """All workers but the first wait here until the main process lets them go."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()

    def __call__(self, worker: int) -> None:
        raise_warnings(worker)
        if worker > 0:
            os.read(self._read_end, 1)

    def open(self) -> None:
        os.write(self._write_end, bytes(100))  # one for each that waits, or comes later

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()  # where a test failed before it did
    gate.close()


def make(path: Path, kind: Any, gate: Gate, workers: int, persistent: bool) -> Any:
    return kind(
        SETTING.dataset(path),
        batch_size=None,
        num_workers=workers,
        persistent_workers=persistent,
        worker_init_fn=gate,
        multiprocessing_context="fork",
    )


def state_in_epoch_one(path: Path) -> dict[str, Any]:
    dataset = SETTING.dataset(path)
    dataset.set_epoch(1)
    numbers(itertools.islice(iter(dataset), 4))
    return dataset.state_dict()


@pytest.mark.parametrize("what", ["load_state_dict", "set_epoch", "nothing"])
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_miss_a_look_are_in_time_for_the_next_pass(path, gate, workers, what):
    loader = make(path, s3io.DataLoader, gate, workers, True)
    next(iter(loader))  # from the first worker; the others have not begun
    if what == "load_state_dict":
        loader.load_state_dict(state_in_epoch_one(path))
    if what == "set_epoch":
        loader.set_epoch(5)
    gate.open()
    wanted = {
        "load_state_dict": epoch_of(path, 1, 16),
        "set_epoch": epoch_of(path, 5),
        "nothing": epoch_of(path, 1),
    }
    assert numbers(loader) == wanted[what]
    loader.set_epoch(9)
    assert numbers(loader) == epoch_of(path, 9)


@pytest.mark.parametrize("kind", [s3io.DataLoader, DataLoader])
@pytest.mark.parametrize("persistent", [True, False])
def test_a_late_worker_reads_the_epoch_that_its_pass_began_with(path, gate, persistent, kind):
    loader = make(path, kind, gate, 2, persistent)
    batches = iter(loader)
    head = numbers([next(batches)])
    loader.dataset.set_epoch(7)  # of the next pass
    gate.open()
    assert head + numbers(batches) == epoch_of(path, 0)
    assert numbers(loader) == epoch_of(path, 7)


def test_a_look_under_torchs_loader_is_no_epoch_that_is_read_once_more(path, gate):
    loader = make(path, DataLoader, gate, 2, True)
    loader.dataset.load_state_dict(state_in_epoch_one(path))
    next(iter(loader))
    gate.open()
    assert numbers(loader) == epoch_of(path, 1, 16)


class Slow(s3io.RecordDataset):
    """Worker 1 begins its second pass when it is let go."""

    gate: Gate
    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        info = get_worker_info()
        if self.passes == 2 and info is not None:
            self.gate(info.id)
        return super().__iter__()


@pytest.mark.parametrize("kind", [s3io.DataLoader, DataLoader])
def test_a_worker_that_is_late_in_a_later_pass_reads_what_the_others_read(path, gate, kind):
    dataset = Slow(path, dtype="i8", shape=2, batch_size=4, seed=3, shuffle=True, return_index=True)
    dataset.gate = gate
    loader = kind(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    assert numbers(loader) == epoch_of(path, 0)
    dataset.set_epoch(1)
    batches = iter(loader)
    head = numbers([next(batches)])
    dataset.set_epoch(7)
    gate.open()
    assert head + numbers(batches) == epoch_of(path, 1)
    assert numbers(loader) == epoch_of(path, 7)


@pytest.mark.parametrize(
    ("context", "persistent"), [*itertools.product(QUICK_CONTEXTS, (True, False)), ("spawn", True)]
)
def test_looks_and_jumps_leave_every_later_pass_where_it_was_sent(path, context, persistent):
    loader = s3io.DataLoader(
        SETTING.dataset(path),
        num_workers=2,
        persistent_workers=persistent,
        multiprocessing_context=context,
        worker_init_fn=raise_warnings,
    )
    for epoch in (3, 0, 3):
        loader.set_epoch(epoch)
        next(iter(loader))
        loader.set_epoch(epoch)
        assert numbers(loader) == epoch_of(path, epoch)
    assert numbers(loader) == epoch_of(path, 4)


def test_without_shared_memory_every_pass_has_new_workers(path, monkeypatch):
    def refuse() -> None:
        raise s3io.OutOfMemoryError("memfd_create failed")

    monkeypatch.setattr("torch_s3io._C.EpochBoard", refuse)
    loader = s3io.DataLoader(
        SETTING.dataset(path).with_options(pool=None), num_workers=2, worker_init_fn=raise_warnings
    )
    for epoch in range(2):
        assert numbers(loader) == epoch_of(path, epoch)


@pytest.mark.parametrize("persistent", [True, False])
def test_without_it_torchs_loader_is_warned_of_where_its_workers_cannot_be_told(
    path, monkeypatch, persistent
):
    def refuse() -> None:
        raise s3io.OutOfMemoryError("no memory to share")

    monkeypatch.setattr("torch_s3io._C.EpochBoard", refuse)
    dataset = SETTING.dataset(path)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=persistent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        for epoch in range(2):
            dataset.set_epoch(epoch)
            read = numbers(loader)
    said = [str(one.message) for one in caught if one.category is RuntimeWarning]
    if persistent:
        (text,) = said
        assert text.startswith("no memory to share: ")
        assert "persistent_workers=False" in text
    else:
        assert said == []
        assert read == epoch_of(path, 1)
