"""A model, settings and data for Hugging Face's Trainer: for test_hf_trainer and its programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import torch_s3io as s3io

NAMED = np.dtype([("x", "i8"), ("y", "i8")])  # what ``write_numbers`` writes


class Model(transformers.PreTrainedModel):
    """Notes which records it is trained with."""

    config_class = transformers.PretrainedConfig

    def __init__(self) -> None:
        super().__init__(transformers.PretrainedConfig())
        self.layer = torch.nn.Linear(1, 1)
        self.post_init()
        self.read: list[list[int]] = []

    def _init_weights(self, module: Any) -> None:
        pass

    def forward(self, x: Any = None, y: Any = None) -> Any:
        assert x.dim() == 1
        assert torch.equal(x, y)
        if self.training:
            self.read.append(x.tolist())
        loss = self.layer(x.float()[:, None]).square().mean()
        return {"loss": loss, "logits": x}


def arguments(folder: Path, **options: Any) -> Any:
    return transformers.TrainingArguments(
        **{
            "output_dir": str(folder / "output"),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "save_strategy": "no",
            "learning_rate": 1e-9,
            **options,
        },
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )


def named(path: Path, **options: Any) -> s3io.RecordDataset:
    options = {"batch_size": 4, "shuffle": True, "seed": 3, **options}
    return s3io.RecordDataset(path, dtype=NAMED, **options)


class OwnLoader(transformers.Trainer):
    """Is given its loader."""

    loader: Any = None

    def get_train_dataloader(self) -> Any:
        return self.loader
