"""Trains a small CNN on handwritten digits that torch_s3io reads from record files.

    python examples/train_digits.py                            # some seconds
    python examples/train_digits.py --gigabytes 1 --batch-size 4096 --direct require --epochs 1

What it shows: a structured numpy dtype as the record layout, one dict of tensors per batch,
shuffled anew in every epoch, and torch's own DataLoader around it. The digits are real: the 1,797
of scikit-learn's wheel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import (
    Meter,
    Table,
    all_default,
    argument_parser,
    option,
    pick_device,
    positive,
)
from shards import shard_sizes, write_shards
from torch import nn
from torch.utils.data import DataLoader

import torch_s3io as s3io

RECORD = np.dtype([("label", "u1"), ("image", "u1", (8, 8))])
HELD_OUT = 360
GOAL = 0.95

Records = npt.NDArray[Any]
Batch = dict[str, torch.Tensor]


def parse_arguments(
    docstring: str | None, workers: int, data: str = "data/digits"
) -> argparse.Namespace:
    parser = argument_parser(docstring, data=data, batch_size=64)
    parser.set_defaults(workers=workers)
    option(parser, "--epochs", type=positive, default=5, help="epochs to train")
    option(
        parser,
        "--copies",
        type=positive,
        default=16,
        help="times each training digit is written: once as it is, then with noise",
    )
    args = parser.parse_args()
    names = ("epochs", "batch_size", "seed", "copies", "gigabytes")
    args.is_default = all_default(parser, args, *names)
    return args


def load_digits() -> tuple[Records, Records]:
    """The digits as records: those to train on, and those held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("train_digits.py needs scikit-learn: pip install scikit-learn")
    digits = load_digits()
    records = np.empty(len(digits.target), RECORD)
    records["label"], records["image"] = digits.target, digits.images
    np.random.default_rng(0).shuffle(records)
    return records[HELD_OUT:], records[:HELD_OUT]


def augmented(records: Records, copies: Iterable[int]) -> Iterator[Records]:
    """Copies of the records by number, all but copy 0 with noise."""
    for copy in copies:
        noisy = records.copy()
        if copy > 0:
            noise = np.random.default_rng(copy).integers(-2, 3, noisy["image"].shape, np.int8)
            noisy["image"] = np.clip(noisy["image"].astype(np.int8) + noise, 0, 16)
        yield noisy


def write_digits(args: argparse.Namespace) -> tuple[list[Path], Path]:
    """The files to train on and the file of held-out digits, written unless they are there."""
    train, held_out = load_digits()
    copies = args.copies
    if args.gigabytes:
        copies = max(1, round(args.gigabytes * 1e9 / train.nbytes))

    def pieces() -> Iterator[Records]:
        yield held_out
        yield from augmented(train, range(copies))

    train_files = shard_sizes("train", copies * train.nbytes, RECORD.itemsize)
    sizes = {"held-out.bin": held_out.nbytes, **train_files}
    write_shards(args.data, sizes, pieces(), copies=copies, order="as loaded")
    return [args.data / name for name in train_files], args.data / "held-out.bin"


def make_model() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(32 * 4 * 4, 10),
    )


def to_device(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as float [B, 1, 8, 8] in 0..1, and labels as int64 [B]."""
    images = batch["image"].to(device).unsqueeze(1).float() / 16
    return images, batch["label"].to(device).long()


@torch.inference_mode()
def accuracy(model: nn.Module, loader: DataLoader[Batch], device: torch.device) -> float:
    hits = 0
    for batch in loader:
        images, labels = to_device(batch, device)
        hits += int((model(images).argmax(1) == labels).sum())
    return hits / HELD_OUT


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    device: torch.device,
) -> float:
    """Trains on every batch once; the mean loss in nats."""
    losses = []
    for batch in batches:
        images, labels = to_device(batch, device)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def main() -> int:
    args = parse_arguments(__doc__, workers=0)
    train_files, held_out_file = write_digits(args)
    options: dict[str, Any] = {"dtype": RECORD, "direct": args.direct, "engine": args.engine}
    dataset = s3io.RecordDataset(
        train_files, batch_size=args.batch_size, shuffle=True, seed=args.seed, **options
    )
    held_out = s3io.RecordDataset(held_out_file, batch_size=HELD_OUT, **options)
    loader = DataLoader(dataset, batch_size=None, num_workers=args.workers)
    held_out_loader = DataLoader(held_out, batch_size=None)

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = pick_device()
    model = make_model().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    print(f"model: {sum(p.numel() for p in model.parameters()):,} parameters on {device}")

    meter = Meter(dataset, RECORD.itemsize)
    table = Table("epoch", "loss", "accuracy", *meter.columns)
    for epoch in dataset.epochs(args.epochs):
        loss = train_epoch(model, optimizer, meter.watch(loader), device)
        rates = meter.lap()
        reached = accuracy(model, held_out_loader, device)
        table.row(str(epoch + 1), f"{loss:.4f}", f"{reached:.1%}", *rates)
    print(meter.how_it_was_read())

    verdict = "reached" if reached >= GOAL else "NOT reached"
    print(f"held-out accuracy {reached:.1%}: the goal of {GOAL:.0%} was {verdict}")
    return 1 if reached < GOAL and args.is_default else 0


if __name__ == "__main__":
    sys.exit(main())
