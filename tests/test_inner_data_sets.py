"""In a worker only the data set that the loader reads is shared out; others are read whole."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import QUICK_CONTEXTS, raise_warnings, worker_count
from torch.utils.data import (
    ChainDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    get_worker_info,
)

import torch_s3io as s3io

BANK = list(range(1000, 1060))
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.arange(40, dtype="i8").tofile(tmp_path / "a.bin")
    np.array(BANK, dtype="i8").tofile(tmp_path / "bank.bin")
    return tmp_path


def make(folder: Path, name: str = "a", **options: Any) -> s3io.RecordDataset:
    return s3io.RecordDataset(folder / f"{name}.bin", dtype="i8", **{"batch_size": 5, **options})


def records(dataset: Any) -> list[int]:
    return [int(one) for batch in dataset for one in batch.flatten()]


class WithBank:
    """A transform, or a collate function, that walks through a second data set."""

    def __init__(self, bank: s3io.RecordDataset) -> None:
        self.bank = bank

    def __call__(self, batch: Any) -> Any:
        return {"x": batch, "bank": torch.tensor(records(self.bank))}


class WithNewBank(WithBank):
    """Which is made anew for each batch."""

    def __call__(self, batch: Any) -> Any:
        return {"x": batch, "bank": torch.tensor(records(self.bank.with_options()))}


class Passed(IterableDataset[Any]):
    """Somebody's data set around ours."""

    def __init__(self, *datasets: s3io.RecordDataset) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        return iter(self.datasets[0])


class Walked(Passed):
    """Which reads a second one for every batch of the first."""

    def __iter__(self) -> Iterator[Any]:
        for batch in self.datasets[0]:
            yield {"x": batch.clone(), "bank": torch.tensor(records(self.datasets[1]))}


class Rows(Dataset[Any]):
    """Of map style: it reads ours for every item."""

    def __init__(self, bank: s3io.RecordDataset) -> None:
        self.bank = bank

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> Any:
        return {"x": torch.tensor([number]), "bank": torch.tensor(records(self.bank))}


def check(loader: Any, bank: list[int] = BANK) -> None:
    for _ in range(2):  # persistent workers, too
        batches = list(loader)
        xs = [int(one) for batch in batches for one in batch["x"].flatten()]
        assert sorted(xs) == list(range(len(xs)))
        for batch in batches:
            assert sorted(batch["bank"].tolist()) == bank


class WithReadBank(IterableDataset[Any]):
    """Somebody's, whose bank was read by what the loader calls in its workers."""

    def __init__(self, bank: s3io.RecordDataset) -> None:
        self.bank = bank
        self.read: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        yield torch.tensor(self.read)


def read_bank(worker: int) -> None:
    info: Any = get_worker_info()
    info.dataset.read = records(info.dataset.bank)


@pytest.mark.parametrize("kind", ["torch", "torchdata"])
@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_what_is_called_when_a_worker_starts_reads_a_data_set_whole(folder, context, kind):
    make_loader: Any = DataLoader
    if kind == "torchdata":
        torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="NEEDS TORCHDATA")
        make_loader = torchdata.StatefulDataLoader
    loader = make_loader(
        WithReadBank(make(folder, "bank")),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=context,
        worker_init_fn=functools.partial(read_bank),
    )
    assert [batch.tolist() for batch in loader] == [BANK, BANK]


@pytest.mark.parametrize(
    ("context", "transform", "kind"),
    [
        *itertools.product(QUICK_CONTEXTS, (WithBank, WithNewBank), (s3io.DataLoader, DataLoader)),
        ("spawn", WithBank, DataLoader),
    ],
)
def test_a_transform_reads_a_data_set_whole(folder, kind, transform, context):
    dataset = make(folder, transform=transform(make(folder, "bank", batch_size=7, shuffle=True)))
    check(kind(dataset, batch_size=None, num_workers=worker_count(context),
               multiprocessing_context=context, persistent_workers=True,
               worker_init_fn=raise_warnings))  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_with_any_number_of_workers_it_is_the_same(folder, workers):
    check(s3io.DataLoader(make(folder, transform=WithBank(make(folder, "bank"))),
                          num_workers=workers))  # fmt: skip


def collate(collating: WithBank, batch: Any) -> Any:
    return collating(batch)


@pytest.mark.parametrize("how", ["object", "partial", "lambda"])
@pytest.mark.parametrize("wraps", [False, True])
def test_a_collate_function_reads_a_data_set_whole(folder, wraps, how):
    with_bank = WithBank(make(folder, "bank"))
    collate_fn = {
        "object": with_bank,
        "partial": functools.partial(collate, with_bank),
        "lambda": lambda batch: with_bank(batch),
    }[how]
    dataset: Any = make(folder)
    check(DataLoader(Passed(dataset) if wraps else dataset, batch_size=None, num_workers=2,
                     collate_fn=collate_fn, worker_init_fn=raise_warnings,
                     multiprocessing_context="fork"))  # fmt: skip


def test_a_map_style_data_set_reads_ours_whole(folder):
    check(DataLoader(Rows(make(folder, "bank")), batch_size=None, num_workers=2,
                     worker_init_fn=raise_warnings))  # fmt: skip


def test_a_loader_within_a_transform_reads_a_data_set_whole(folder):
    bank = DataLoader(make(folder, "bank"), batch_size=None)
    check(s3io.DataLoader(make(folder, transform=WithBank(bank)), num_workers=2))


def test_what_a_worker_reads_for_itself_counts_its_epochs_and_can_be_sent(folder):
    bank = make(folder, "bank", batch_size=60, shuffle=True, seed=1)
    epochs = []
    for epoch in range(6):
        bank.set_epoch(epoch)
        epochs.append(records(bank))
    bank.set_epoch(0)
    dataset = make(folder, batch_size=20, transform=WithBank(bank))
    loader = s3io.DataLoader(dataset, num_workers=1)
    assert [batch["bank"].tolist() for batch in loader] == epochs[:2]
    assert [batch["bank"].tolist() for batch in loader] == epochs[2:4]
    bank.set_epoch(4)
    assert [batch["bank"].tolist() for batch in loader] == epochs[4:]


@pytest.mark.parametrize("shared", [True, False])
def test_a_setting_says_whether_workers_share_what_a_wrapper_reads(folder, shared):
    walked = Walked(make(folder), make(folder, "bank", shard_by_worker=shared))
    loader = DataLoader(walked, batch_size=None, num_workers=2, worker_init_fn=raise_warnings)
    if not shared:
        check(loader)
    shares = {tuple(batch["bank"].tolist()) for batch in loader}
    expected = {tuple(BANK)} if not shared else set()
    if shared:  # batches of five in turn
        expected = {tuple(n for n in BANK if (n // 5) % 2 == worker) for worker in range(2)}
    assert shares == expected


def test_a_wrapper_that_reads_two_of_ours_is_asked_which_are_shared(folder):
    walked = Walked(make(folder), make(folder, "bank"))
    loader = DataLoader(walked, batch_size=None, num_workers=2, worker_init_fn=raise_warnings)
    with pytest.raises(RuntimeWarning, match=r"Walked reads .* shard_by_worker=False"):
        list(loader)


class Again(Passed):
    """Which goes through ours twice."""

    def __iter__(self) -> Iterator[Any]:
        for _ in range(2):
            yield from self.datasets[0]


def test_a_wrapper_that_reads_one_of_ours_again_is_asked_too(folder):
    loader = DataLoader(Again(make(folder)), batch_size=None, num_workers=1,
                        worker_init_fn=raise_warnings)  # fmt: skip
    with pytest.raises(RuntimeWarning, match=r"more than once in a pass.*shard_by_worker"):
        list(loader)


@pytest.mark.parametrize("persistent", [True, False])
def test_nobody_is_asked_where_it_is_clear(folder, persistent):
    for dataset in (
        Passed(make(folder)),
        ChainDataset([make(folder), make(folder, "bank")]),
    ):
        options: Any = {"persistent_workers": persistent, "worker_init_fn": raise_warnings}
        loader = DataLoader(dataset, batch_size=None, num_workers=2, **options)
        for _ in range(2):
            read = records(loader)
            assert sorted(read) in (list(range(40)), [*range(40), *BANK])


def test_the_loaders_own_data_set_is_shared(folder):
    dataset = make(folder, shard_by_worker=False)
    assert records(s3io.DataLoader(dataset)) == list(range(40))
    with pytest.raises(s3io.ConfigError, match="once per worker"):
        s3io.DataLoader(dataset, num_workers=1)
    loader = DataLoader(dataset, batch_size=None, num_workers=1)
    with pytest.raises(s3io.ConfigError, match="once per worker"):
        list(loader)
    with pytest.raises(s3io.ConfigError, match="shard_by_worker"):
        make(folder, shard_by_worker=1)


def test_an_iterator_that_a_forked_worker_goes_on_with_leaves_the_main_process_alone(folder):
    bank = make(folder, "bank")
    made_before = iter(bank)

    def take(batch: Any) -> Any:
        return {"x": batch, "bank": next(made_before).clone()}

    dataset = make(folder, batch_size=20, transform=take)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = s3io.DataLoader(dataset, num_workers=1, multiprocessing_context="fork")
        assert [batch["bank"].tolist() for batch in loader] == [BANK[:5], BANK[5:10]]
    assert bank.state_dict()["consumed"] == 0
    assert records(bank) == BANK
