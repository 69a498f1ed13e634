"""Accelerate's ways to share out and to skip what a loader reads: every record comes once."""

from __future__ import annotations

import itertools
import json
import textwrap
from pathlib import Path
from typing import Any

import order_check
import pytest
from lazily import lazily
from order_check import Setting, numbers, write_numbers
from torch.utils.data import DataLoader
from torchruns import torchrun

import torch_s3io as s3io

data_loader = lazily(
    "accelerate.data_loader",
    needs="accelerate",
    reason="NEEDS ACCELERATE: its loaders are not tested",
)

SETTING = Setting(records=48, batch=4, seed=3, shuffle=True, others={"pool": "auto"})
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def dataset_of(path: Path, **options: Any) -> s3io.RecordDataset:
    """Its ranks are those of the environment."""
    return SETTING.dataset(path).with_options(rank=None, world_size=None, **options)


def be_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_drops_what_other_ranks_get_gets_everything(path, num_workers, monkeypatch):
    """``dispatch_batches=False``."""
    records = []
    for rank in range(2):
        be_rank(monkeypatch, rank, 2)
        dataset = dataset_of(path, batch_size=None)
        shard = data_loader.IterableDatasetShard(
            dataset, batch_size=4, num_processes=2, process_index=rank
        )
        loader = DataLoader(shard, batch_size=4, num_workers=num_workers)
        assert len(dataset) == 24
        assert len(loader) == 6
        shard.set_epoch(2)
        records.append([one for batch in loader for one in batch[1].tolist()])
    order = order_check.order_of_epoch(path, SETTING, 2)
    steps = order_check.steps_of(order, 0, Setting(48, 4, world=2))
    if num_workers == 0:
        expected = [[one for step in steps for one in step[rank]] for rank in range(2)]
        assert records == expected
    assert sorted(records[0] + records[1]) == list(range(48))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["samples", "batches", "wrapped"])
def test_a_loader_that_sends_others_their_shares_gets_everything(
    path, kind, num_workers, monkeypatch
):
    """``dispatch_batches=True``, here in one process, which stands for rank 0 of 2."""
    dataset: Any = dataset_of(path, batch_size=None if kind == "samples" else 4)
    if kind == "wrapped":  # has no set_epoch, which would be called before
        dataset = order_check.Wrapped(dataset)
    loader = data_loader.DataLoaderDispatcher(
        dataset, batch_size=4 if kind == "samples" else None, num_workers=num_workers
    )
    be_rank(monkeypatch, 0, 2)
    if kind != "wrapped":
        assert len(dataset) == {"samples": 24, "batches": 6}[kind]
        assert len(loader) == 12
    for epoch in range(1 if kind == "wrapped" and num_workers else 2):
        read = numbers(loader)
        if kind == "samples" and num_workers:
            assert sorted(itertools.chain(*read)) == list(range(48))
        else:
            assert read == order_check.batches_of(path, SETTING, epoch)
    if kind == "batches":  # by itself it is rank 0's
        assert len(numbers(dataset)) == 6


def test_a_share_that_was_asked_for_is_not_shared_out_once_more(path):
    shared = dataset_of(path).with_options(rank=1, world_size=2, batch_size=None)
    shard = data_loader.IterableDatasetShard(shared, batch_size=4, num_processes=2, process_index=1)
    dispatcher = data_loader.DataLoaderDispatcher(shared, batch_size=4)
    for call in (
        lambda: next(iter(shard)),
        lambda: shard.set_epoch(1),
        lambda: len(shard),
        lambda: next(iter(dispatcher)),
        lambda: len(dispatcher),
    ):
        with pytest.raises(s3io.ConfigError, match="accelerate shares out what it yields once mo"):
            call()
    whole = shared.with_options(rank=0, world_size=1)
    shard = data_loader.IterableDatasetShard(whole, batch_size=4, num_processes=2)
    assert len(list(shard)) == 24


def test_shares_of_batches_are_refused_with_what_to_change(path):
    dataset = dataset_of(path)
    shard = data_loader.IterableDatasetShard(dataset, batch_size=None, num_processes=2)
    with pytest.raises(s3io.ConfigError, match=r"makes batches and shares of samples: .*None to"):
        shard.set_epoch(0)
    shard = data_loader.IterableDatasetShard(dataset, batch_size=4, num_processes=2)
    with pytest.raises(s3io.ConfigError, match="would stack them once more"):
        next(iter(DataLoader(shard, batch_size=4)))


def loader_over(dataset: Any, kind: str, num_workers: int) -> Any:
    make = s3io.DataLoader if kind == "ours" else DataLoader
    return make(dataset, batch_size=None, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["ours", "torch's"])
def test_skipping_is_from_the_start_of_the_epoch_that_was_set(path, kind, num_workers):
    dataset = SETTING.dataset(path)
    loader = loader_over(dataset, kind, num_workers)
    dataset.set_epoch(3)
    rest = order_check.batches_of(path, SETTING, 3)[5:]
    assert numbers(data_loader.skip_first_batches(loader, 5)) == rest
    dataset.set_epoch(4)
    assert numbers(loader) == order_check.batches_of(path, SETTING, 4)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_a_state_says_is_not_skipped_once_more(path, num_workers):
    loader = loader_over(SETTING.dataset(path), "ours", num_workers)
    loader.set_epoch(3)
    numbers(itertools.islice(iter(loader), 5))
    state = loader.state_dict()
    resumed = loader_over(SETTING.dataset(path), "ours", num_workers)
    resumed.load_state_dict(state)
    rest = order_check.batches_of(path, SETTING, 3)[5:]
    assert numbers(data_loader.skip_first_batches(resumed, 5)) == rest


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_in_an_epoch_that_nobody_named_is_warned_of(path, num_workers):
    loader = loader_over(SETTING.dataset(path), "ours", num_workers)
    with pytest.warns(RuntimeWarning, match=r"which epoch .* this reads epoch 0\. Call set_epoch"):
        assert len(numbers(data_loader.skip_first_batches(loader, 5))) == 7


MODES = """
    import itertools, json, sys
    import torch
    import torch.distributed as dist
    import torch_s3io as s3io
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DataLoaderConfiguration

    path = sys.argv[1]
    options = {"dtype": "i8", "shape": 2, "shuffle": True, "rank_timeout_s": 10.0}

    def make(kind, num_workers):
        samples = s3io.RecordDataset(path, batch_size=None, **options)
        if kind == "samples":
            return torch.utils.data.DataLoader(samples, batch_size=4, num_workers=num_workers)
        if kind == "map":
            records = s3io.RecordMapDataset(samples)
            return s3io.DataLoader(records, batch_size=4, num_workers=num_workers, shuffle=True)
        batches = s3io.RecordDataset(path, batch_size=4, **options)
        if kind == "torch's":
            return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=num_workers)
        return s3io.DataLoader(batches, num_workers=num_workers)

    kinds = ("samples", "map", "torch's", "ours")
    for mode in itertools.product(kinds, (0, 1), (None, True, False), (False, True)):
        kind, num_workers, dispatch, split = mode
        AcceleratorState._reset_state()
        GradientState._reset_state()
        config = DataLoaderConfiguration(dispatch_batches=dispatch, split_batches=split)
        accelerator = Accelerator(cpu=True, dataloader_config=config)
        try:
            loader = accelerator.prepare(make(kind, num_workers))
            said = [[row[0] for batch in loader for row in batch.tolist()] for _ in range(2)]
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        ranks = [None, None]
        dist.all_gather_object(ranks, said)
        if dist.get_rank() == 0:
            print(json.dumps([*mode, ranks]))
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_in_every_mode_two_ranks_read_every_record_or_say_why_not(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", 48)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(MODES))
    status, output = torchrun(tmp_path, 2, program, path, imported=("accelerate",))
    assert status == 0, output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('["')]
    assert len(lines) == 4 * 2 * 3 * 2
    for kind, num_workers, dispatch, split, (first, second) in lines:
        mode = kind, num_workers, dispatch, split
        makes_batches = kind in ("torch's", "ours")
        if makes_batches and split:  # accelerate's own
            assert "must have a `batch_size` attribute" in first, mode
        elif makes_batches and dispatch is False:
            assert "ConfigError: " in first, mode
            assert "makes batches and shares of samples" in second, mode
        else:
            epochs = [sorted(one + other) for one, other in zip(first, second, strict=True)]
            assert epochs == [list(range(48))] * 2, mode
            assert first[0] != first[1], mode  # in another order
            assert len(first[0]) == 24, mode
