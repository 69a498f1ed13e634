"""Lightning, a model for it, and a callback that saves: for test_lightning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from order_check import numbers

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(L.LightningModule):
    """Notes which records it is trained with."""

    def __init__(self, asks_for_steps: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.asks_for_steps = asks_for_steps
        self.read: list[list[int]] = []

    def training_step(self, batch: Any, _: int) -> Any:
        self.read += numbers([batch])
        return self.layer(batch[0][:, :1].float()).mean()

    def validation_step(self, batch: Any, _: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        if self.asks_for_steps:
            self.trainer.estimated_stepping_batches  # noqa: B018
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Any:
    return L.Trainer(
        **{"max_epochs": 3, "num_sanity_val_steps": 2, **options},
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[*callbacks],
    )


class Save(L.Callback):
    """Saves a checkpoint in a hook, when that is called for the n-th time."""

    def __init__(self, hook: str, number: int, path: Path) -> None:
        self.calls_left, self.path = number, path
        self.read_before = 0
        setattr(self, hook, self.save)

    def save(self, trainer: Any, module: Module, *_: Any) -> None:
        if trainer.sanity_checking:
            return
        self.calls_left -= 1
        if self.calls_left == 0:
            self.read_before = len(module.read)
            trainer.save_checkpoint(self.path, weights_only=False)
