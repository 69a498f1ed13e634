"""Hugging Face's Trainer over our data sets: every record once, in the right shape, and resumed."""

from __future__ import annotations

import json
import os
import textwrap
import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import order_check
import pytest
import torch
from lazily import lazily
from order_check import Setting, write_numbers
from torch.utils.data import DataLoader
from torchruns import torchrun

import torch_s3io as s3io

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = lazily(
    "transformers", needs="transformers", reason="NEEDS TRANSFORMERS: its Trainer is not tested"
)
parts = lazily(
    "trainer_parts",
    needs="accelerate",
    reason="NEEDS ACCELERATE: nor is what Trainer needs",
)

SETTING = Setting(records=48, batch=4, seed=3, shuffle=True)
STEPS = 12  # of an epoch
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


@pytest.fixture(autouse=True)
def _without_a_thread_of_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)


def batches_of(path: Path, epoch: int) -> list[list[int]]:
    return order_check.batches_of(path, SETTING, epoch)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["samples", "batches", "map"])
def test_trainer_trains_on_every_record_once_an_epoch(path, kind, num_workers):
    """However large the data set's own batches are: Trainer makes them."""
    dataset: Any = parts.named(path, batch_size=None if kind == "samples" else 8)
    if kind == "map":
        dataset = s3io.RecordMapDataset(dataset)
    model = parts.Model()
    args = parts.arguments(path.parent, dataloader_num_workers=num_workers)
    trainer = transformers.Trainer(model=model, args=args, train_dataset=dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    told = [
        str(one.message)
        for one in caught
        if "transformers makes the batches" in one.message.args[0]
    ]
    assert len(told) == (kind == "batches" and num_workers == 0)  # else by the worker
    assert len(model.read) == 2 * STEPS
    for epoch in range(2):
        read = model.read[epoch * STEPS : (epoch + 1) * STEPS]
        assert sorted(chain(*read)) == list(range(48))
        if kind == "samples" and num_workers == 0:
            assert read == batches_of(path, epoch)
    assert model.read[:STEPS] != model.read[STEPS:]


def test_an_evaluation_sees_every_record(path):
    def count(predictions: Any) -> dict[str, float]:
        return {"sum": float(predictions.predictions.sum()), "count": len(predictions.predictions)}

    for batch_size in (None, 5):
        dataset = parts.named(path, batch_size=batch_size).subset(0, 45)
        trainer = transformers.Trainer(
            model=parts.Model(),
            args=parts.arguments(path.parent, per_device_eval_batch_size=7, label_names=["y"]),
            eval_dataset=dataset,
            compute_metrics=count,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "transformers makes the batches")
            metrics = trainer.evaluate()
        assert (metrics["eval_sum"], metrics["eval_count"]) == (sum(range(45)), 45)


@pytest.mark.parametrize("batch", [torch.arange(3), {"x": (torch.arange(3), [torch.arange(3)])}])
def test_batches_of_any_structure_become_samples(tmp_path, batch):
    path = write_numbers(tmp_path / "numbers.bin", 3)
    dataset = parts.named(path, batch_size=3, transform=lambda _: batch)
    collated: list[Any] = []

    class Collator(transformers.DefaultDataCollator):
        def __call__(self, samples: Any, return_tensors: Any = None) -> Any:
            collated.extend(samples)
            return {}

    Collator.__module__ = "transformers.of_a_test"
    loader = DataLoader(dataset, batch_size=2, collate_fn=Collator())
    with pytest.warns(RuntimeWarning, match="transformers makes the batches"):
        assert len(list(loader)) == len(loader) == 2
    expected = [
        torch.tensor(n) if isinstance(batch, torch.Tensor) else {"x": (n, (n,))} for n in range(3)
    ]
    assert collated == expected


def test_a_batch_without_samples_is_refused(path):
    dataset = parts.named(path, transform=lambda _: "all of them")
    loader = DataLoader(dataset, batch_size=2, collate_fn=transformers.default_data_collator)
    with pytest.warns(RuntimeWarning), pytest.raises(s3io.ConfigError, match="made a str of a ba"):
        next(iter(loader))


@pytest.mark.filterwarnings("ignore:transformers makes the batches")
def test_a_place_within_a_batch_is_no_state(path):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="NEEDS TORCHDATA")
    options = {"batch_size": 2, "collate_fn": transformers.default_data_collator}
    dataset = parts.named(path)
    next(iter(DataLoader(dataset, **options)))
    with pytest.raises(s3io.ConfigError, match="batch_size=None to the data set"):
        dataset.state_dict()
    with pytest.raises(s3io.ConfigError, match="batch_size=None to the data set"):
        next(iter(torchdata.StatefulDataLoader(parts.named(path), num_workers=1, **options)))
    samples = parts.named(path, batch_size=None)
    next(iter(DataLoader(samples, **options)))
    assert samples.state_dict()["consumed"] == 2


def test_a_collator_of_ones_own_gets_the_batches(path):
    dataset = parts.named(path)
    args = parts.arguments(path.parent)
    seen: list[int] = []

    def collate(batches: list[Any]) -> Any:
        seen.extend(len(batch["x"]) for batch in batches)
        return {name: torch.cat([batch[name] for batch in batches]) for name in ("x", "y")}

    model = parts.Model()
    args.per_device_train_batch_size = 3
    trainer = transformers.Trainer(
        model=model, args=args, train_dataset=dataset, data_collator=collate
    )
    trainer.train()
    assert set(seen) == {4}
    assert [len(batch) for batch in model.read] == [12] * 8


def train(path: Path, loader: Any, resume: int | None = None, **options: Any) -> list[list[int]]:
    """What is read in three epochs; a checkpoint is saved after 16 steps, in the second one."""
    model = parts.Model()
    options = {"max_steps": 3 * STEPS, "save_strategy": "steps", "save_steps": 16, **options}
    trainer = parts.OwnLoader(model=model, args=parts.arguments(path.parent, **options))
    trainer.loader = loader
    checkpoint = resume and str(path.parent / "output" / f"checkpoint-{resume}")
    trainer.train(resume_from_checkpoint=checkpoint)
    return model.read


def loader_over(path: Path, kind: str, num_workers: int) -> Any:
    if kind == "ours":
        return s3io.DataLoader(parts.named(path), num_workers=num_workers)
    return DataLoader(parts.named(path), batch_size=None, num_workers=num_workers)


@pytest.mark.parametrize(("kind", "num_workers"), [("ours", 0), ("ours", 2), ("torch's", 0)])
def test_trainers_own_skipping_goes_on_in_the_epoch_that_was_left(path, kind, num_workers):
    whole = train(path, loader_over(path, kind, num_workers))
    assert whole == [*chain(*(batches_of(path, epoch) for epoch in range(3)))]
    assert train(path, loader_over(path, kind, num_workers), 16) == whole[16:]
    assert train(path, loader_over(path, kind, num_workers), 32) == whole[32:]


def test_a_data_set_that_trainer_loads_is_resumed_by_skipping_too(path):
    def run(resume: int | None) -> list[list[int]]:
        model = parts.Model()
        options = {"save_strategy": "steps", "save_steps": 16}
        trainer = transformers.Trainer(
            model=model,
            args=parts.arguments(path.parent, **options),
            train_dataset=parts.named(path, batch_size=None),
        )
        checkpoint = resume and str(path.parent / "output" / f"checkpoint-{resume}")
        trainer.train(resume_from_checkpoint=checkpoint)
        return model.read

    whole = run(None)
    assert whole == batches_of(path, 0) + batches_of(path, 1)
    assert run(16) == whole[16:]


TWO_RANKS = """
    import json, os, sys
    import torch, torch.distributed as dist
    import torch_s3io as s3io
    import transformers
    sys.path.insert(0, sys.argv[2])
    from trainer_parts import Model, OwnLoader, arguments, named
    from pathlib import Path

    path = Path(sys.argv[1])
    for kind in ("samples", "workers", "dropping", "batches", "map", "own loader"):
        options = {"dataloader_num_workers": int(kind == "workers")}
        if kind == "dropping":
            options["accelerator_config"] = {"dispatch_batches": False}
        makes_batches = kind in ("batches", "own loader")
        dataset = named(path, batch_size=4 if makes_batches else None, rank_timeout_s=20.0)
        if kind == "map":
            dataset = s3io.RecordMapDataset(dataset)
        model = Model()
        args = arguments(path.parent, **options)
        make_trainer = OwnLoader if kind == "own loader" else transformers.Trainer
        trainer = make_trainer(model=model, args=args, train_dataset=dataset)
        trainer.loader = s3io.DataLoader(dataset) if kind == "own loader" else None
        trainer.train()
        ranks = [None, None]
        dist.all_gather_object(ranks, model.read)
        if dist.get_rank() == 0:
            print(json.dumps([kind, ranks]), flush=True)
    dist.barrier()
    # The last reference to gloo's group is DDP's: its end joins a thread, which may wait for the
    # GIL, with the GIL (seen with PyTorch 2.13: Reducer, ProcessGroupGloo, std::thread::join).
    os._exit(0)
"""


@pytest.mark.slow
def test_two_ranks_train_on_every_record_once_an_epoch(path):
    program = path.with_name("program.py")
    program.write_text(textwrap.dedent(TWO_RANKS))
    command = (program, path, Path(__file__).parent)
    status, output = torchrun(path.parent, 2, *command, imported=("transformers.trainer",))
    assert status == 0, output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('["')]
    assert len(lines) == 6
    for kind, ranks in lines:
        assert [len(read) for read in ranks] == [STEPS] * 2, kind  # of two epochs
        for epoch in (slice(0, 6), slice(6, 12)):
            records = sorted(chain(*ranks[0][epoch], *ranks[1][epoch]))
            assert records == list(range(48)), kind
