"""Lightning's checkpoints, of any time, resume our loader with the batch after the last one."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import order_check
import pytest
from lazily import lazily
from order_check import Setting, numbers, write_numbers
from torch.utils.data import DataLoader

import torch_s3io as s3io

parts = lazily(
    "lightning_parts",
    needs="lightning",
    reason="NEEDS LIGHTNING: its checkpoints are not tested",
)

SETTING = Setting(records=45, batch=4, seed=3, shuffle=True, others={"pool": "auto"})
STEPS = 12  # of an epoch
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers", "ignore:.*multi-threaded.*fork:DeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:DeprecationWarning"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def loader_of(path: Path, num_workers: int = 0) -> s3io.DataLoader:
    return s3io.DataLoader(SETTING.dataset(path), num_workers=num_workers)


RUNS: dict[str, tuple[int, dict[str, Any]]] = {  # batches of an epoch, options
    "whole epochs": (STEPS, {}),
    "limit_train_batches": (5, {"limit_train_batches": 5}),
    "accumulate": (6, {"limit_train_batches": 0.5, "accumulate_grad_batches": 2}),
    "val_check_interval": (STEPS, {"val_check_interval": 4}),
    "max_steps": (STEPS, {"max_steps": 3 * STEPS, "max_epochs": -1}),
}


def saves(steps: int, validations: int) -> dict[str, tuple[str, int]]:
    return {
        "first batch": ("on_train_batch_end", 1),
        "in the first epoch": ("on_train_batch_end", 3),
        "first batch of an epoch": ("on_train_batch_end", steps + 1),
        "in an epoch": ("on_train_batch_end", steps + 4),
        "last batch of an epoch": ("on_train_batch_end", 2 * steps),
        "end of the first epoch": ("on_train_epoch_end", 1),
        "end of an epoch": ("on_train_epoch_end", 2),
        "validation in an epoch": ("on_validation_end", validations + 1),
        "validation at the end": ("on_validation_end", 2 * validations),
    }


@pytest.mark.parametrize("asks_for_steps", [False, True], ids=["", "estimated_stepping_batches"])
@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_run_reads_what_the_uninterrupted_one_would(path, run, asks_for_steps):
    check_resumed(path, run, asks_for_steps, 0, saves(STEPS, 1))


@pytest.mark.slow
@pytest.mark.parametrize("asks_for_steps", [False, True], ids=["", "estimated_stepping_batches"])
@pytest.mark.parametrize("run", ["whole epochs", "limit_train_batches"])
def test_so_does_one_with_workers(path, run, asks_for_steps):
    names = ["in an epoch", "last batch of an epoch", "end of an epoch"]
    check_resumed(path, run, asks_for_steps, 2, names)


def check_resumed(
    path: Path, run: str, asks_for_steps: bool, num_workers: int, names: Iterable[str]
) -> None:
    """One run saves at all these moments; from each checkpoint another one goes on."""
    steps, options = RUNS[run]
    hooks = saves(steps, 3 if "val_check_interval" in options else 1)
    savers = {name: parts.Save(*hooks[name], path.with_name(f"{name}.ckpt")) for name in names}
    validation = s3io.DataLoader(SETTING.dataset(path).with_options(shuffle=False))
    whole = parts.Module(asks_for_steps)
    loader = loader_of(path, num_workers)
    parts.trainer(path.parent, *savers.values(), **options).fit(whole, loader, validation)
    epochs = [order_check.batches_of(path, SETTING, epoch)[:steps] for epoch in range(3)]
    assert whole.read == list(itertools.chain(*epochs))

    for name, saver in savers.items():
        rest = parts.Module(asks_for_steps)
        loader = loader_of(path, num_workers)
        resuming = parts.trainer(path.parent, **options)
        resuming.fit(rest, loader, validation, ckpt_path=saver.path, weights_only=False)
        assert rest.read == whole.read[saver.read_before :], name


def test_a_loader_for_every_epoch_reads_the_epochs_one_after_the_other(path):
    class WithLoader(parts.Module):
        def train_dataloader(self) -> Any:
            return loader_of(path)

    module = WithLoader()
    parts.trainer(path.parent, reload_dataloaders_every_n_epochs=1).fit(module)
    epochs = [order_check.batches_of(path, SETTING, epoch) for epoch in range(3)]
    assert module.read == list(itertools.chain(*epochs))


def test_a_state_that_was_loaded_before_goes_on_where_no_checkpoint_is_given(path):
    loader = loader_of(path)
    loader.set_epoch(5)
    numbers(itertools.islice(iter(loader), 7))
    resumed = loader_of(path)
    resumed.load_state_dict(loader.state_dict())
    module = parts.Module()
    parts.trainer(path.parent, max_epochs=2).fit(module, resumed)
    epochs = [order_check.batches_of(path, SETTING, epoch) for epoch in (5, 6)]
    assert module.read == epochs[0][7:] + epochs[1]


def test_a_checkpoint_of_another_loader_begins_the_epoch_that_lightning_begins(path):
    checkpoint = path.with_name("a.ckpt")
    theirs = DataLoader(SETTING.dataset(path), batch_size=None)
    parts.trainer(path.parent, parts.Save("on_train_epoch_end", 2, checkpoint)).fit(
        parts.Module(), theirs
    )
    module = parts.Module()
    parts.trainer(path.parent).fit(
        module, loader_of(path), ckpt_path=checkpoint, weights_only=False
    )
    assert module.read == order_check.batches_of(path, SETTING, 2)


def test_validation_and_loops_without_lightning_count_as_ever(path):
    validation, other = loader_of(path), loader_of(path)

    class Validates(parts.Module):
        def validation_step(self, batch: Any, _: int) -> None:
            self.validated = [*getattr(self, "validated", []), *numbers([batch])]
            if len(self.validated) == 1:
                assert numbers(other) == order_check.batches_of(path, SETTING, 0)

    module = Validates()
    options = {"max_epochs": 2, "num_sanity_val_steps": 0}
    parts.trainer(path.parent, **options).fit(module, loader_of(path), validation)
    epochs = [order_check.batches_of(path, SETTING, epoch) for epoch in (0, 1)]
    assert module.validated == module.read == epochs[0] + epochs[1]


def test_a_lightning_that_keeps_no_states_of_loaders_trains(path):
    class Older(parts.L.Callback):  # before 2.2
        def on_train_start(self, trainer: Any, _: Any) -> None:
            del trainer.fit_loop._combined_loader_states_to_load

    module = parts.Module()
    parts.trainer(path.parent, Older(), max_epochs=2).fit(module, loader_of(path))
    assert module.read == [
        batch for epoch in (0, 1) for batch in order_check.batches_of(path, SETTING, epoch)
    ]


def test_two_loaders_at_a_time_each_go_on(path):
    """The shorter one is read again and again, and counts its own epochs."""
    short = SETTING.dataset(path).subset(0, 20)

    class Both(parts.Module):
        def training_step(self, batch: Any, number: int) -> Any:
            self.read += [one for part in batch for one in numbers([part])]
            return self.layer(batch[0][0][:, :1].float()).mean()

    def loaders() -> list[Any]:
        return [loader_of(path), s3io.DataLoader(short.with_options())]

    for number in (STEPS + 3, 2 * STEPS):
        checkpoint = path.with_name("a.ckpt")
        whole, rest = Both(), Both()
        parts.trainer(path.parent, parts.Save("on_train_batch_end", number, checkpoint)).fit(
            whole, loaders()
        )
        parts.trainer(path.parent).fit(rest, loaders(), ckpt_path=checkpoint, weights_only=False)
        assert len(whole.read) == 2 * 3 * STEPS
        assert rest.read == whole.read[2 * number :]


def test_nothing_of_this_warns(path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)
        module = parts.Module()
        parts.trainer(path.parent).fit(module, loader_of(path))
    assert len(module.read) == 3 * STEPS
