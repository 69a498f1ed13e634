"""Trains a small CNN on images in tar archives, decoded by two workers, and resumes it once.

    python examples/train_tar.py                                   # some seconds
    python examples/train_tar.py --gigabytes 1 --batch-size 4096 --epochs 1

What it shows: archives as webdataset and tar write them are read as they lie, in an order that is
shuffled over all of them. Workers decode the PNG files with Pillow in a `transform`. In the middle
of an epoch the program saves a checkpoint, forgets everything, and goes on with the next batch.
The digits are the 1,797 of scikit-learn's wheel.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Table, bytes_text, pick_device
from shards import progress_bar
from torch import nn
from train_digits import (
    GOAL,
    HELD_OUT,
    Records,
    augmented,
    load_digits,
    make_model,
    parse_arguments,
)

import torch_s3io as s3io

try:
    from PIL import Image
except ImportError:
    sys.exit("train_tar.py needs Pillow: pip install pillow")

SHARDS = 4
TRAINED = 1797 - HELD_OUT
SAMPLE_BYTES = 4 * 512  # in an archive: two headers, and two files of less than a block
BRIGHTEST = 16  # of a digit; its image has 15 times as much

Batch = dict[str, Any]


def png_of(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray((image * 15).astype(np.uint8)).save(file, "png")
    return file.getvalue()


def add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_tar(path: Path, digits: Iterator[Records], bar: Any) -> None:
    """An archive gets its name when it is whole."""
    part = path.with_name(f"{path.name}.partial")
    number = 0
    with tarfile.open(part, "w") as archive:
        for records in digits:
            for digit in records:
                add_file(archive, f"{number:08}.png", png_of(digit["image"]))
                add_file(archive, f"{number:08}.cls", str(digit["label"]).encode())
                number += 1
            bar.update(len(records) * SAMPLE_BYTES)
    os.replace(part, path)


def write_digits(folder: Path, copies: int) -> tuple[str, Path]:
    """A pattern of the archives to train on, and the archive of held-out digits; written unless
    they are there."""
    train, held_out = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    shards = min(SHARDS, copies)
    wanted: dict[Path, Iterator[Records]] = {folder / "held-out.tar": iter([held_out])}
    for shard in range(shards):
        path = folder / f"train-{copies}-{shard:03}.tar"
        wanted[path] = augmented(train, range(shard, copies, shards))
    missing = {path: digits for path, digits in wanted.items() if not path.exists()}
    with progress_bar(f"writing {folder}", copies * len(train) * SAMPLE_BYTES) as bar:
        for path, digits in missing.items():
            write_tar(path, digits, bar)
    size = sum(path.stat().st_size for path in wanted)
    state = "written now" if missing else "already there"
    print(f"data: {folder}: {bytes_text(size)} in {len(wanted)} archives, {state}")
    return str(folder / f"train-{copies}-{{000..{shards - 1:03}}}.tar"), folder / "held-out.tar"


def decoded(batch: Batch) -> Batch:
    """Runs in the workers: images as float [B, 1, 8, 8] in 0..1, and labels as int64 [B]."""
    images = [np.asarray(Image.open(io.BytesIO(png.numpy()))) for png in batch["png"]]
    pixels = torch.from_numpy(np.stack(images)).unsqueeze(1).float() / (15 * BRIGHTEST)
    return {"image": pixels, "label": batch["cls"]}


class Training:
    """All that a program has of its run; a checkpoint brings it back."""

    def __init__(self, args: Any, pattern: str) -> None:
        torch.manual_seed(args.seed)
        self.device = pick_device()
        self.model = make_model().to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-3)
        dataset = s3io.SampleDataset.from_tar(
            pattern,
            fields=("png", "cls"),
            decode={"cls": int},
            transform=decoded,
            batch_size=args.batch_size,
            shuffle=True,
            seed=args.seed,
            direct=args.direct,
            engine=args.engine,
        )
        self.loader = s3io.DataLoader(dataset, num_workers=args.workers)
        self.losses: list[torch.Tensor] = []

    def step(self, batch: Batch) -> None:
        scores = self.model(batch["image"].to(self.device))
        loss = nn.functional.cross_entropy(scores, batch["label"].to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())

    def save(self, path: Path) -> None:
        parts = (self.model, self.optimizer, self.loader)
        torch.save([part.state_dict() for part in parts], path)

    def load(self, path: Path) -> None:
        parts: tuple[Any, ...] = (self.model, self.optimizer, self.loader)
        for part, state in zip(parts, torch.load(path, weights_only=False), strict=True):
            part.load_state_dict(state)

    @torch.inference_mode()
    def accuracy(self, held_out: s3io.SampleDataset) -> float:
        hits = 0
        for batch in held_out:
            found = self.model(batch["image"].to(self.device)).argmax(1).cpu()
            hits += int((found == batch["label"]).sum())
        return hits / HELD_OUT


def train_until_stopped(args: Any, pattern: str, checkpoint: Path) -> None:
    """Stops in the middle of the first epoch, as a machine does that is taken away."""
    training = Training(args, pattern)
    half = max(1, len(training.loader) // 2)
    for _ in training.loader.epochs(1):
        for step, batch in enumerate(training.loader, start=1):
            training.step(batch)
            if step == half:
                training.save(checkpoint)
                print(f"stopped after step {step} of {len(training.loader)}, with a checkpoint")
                return


def main() -> int:
    args = parse_arguments(__doc__, workers=2, data="data/digits-tar")
    copies = args.copies
    if args.gigabytes:
        copies = max(1, round(args.gigabytes * 1e9 / (TRAINED * SAMPLE_BYTES)))
    pattern, held_out_file = write_digits(args.data, copies)
    held_out = s3io.SampleDataset.from_tar(
        held_out_file, fields=("png", "cls"), decode={"cls": int}, transform=decoded
    )
    torch.set_num_threads(args.threads)
    checkpoint = args.data / "checkpoint.pt"
    train_until_stopped(args, pattern, checkpoint)

    training = Training(args, pattern)
    training.load(checkpoint)
    print(f"resumed with {args.workers} workers, training on {training.device}")
    table = Table("epoch", "steps", "loss", "accuracy")
    for epoch in training.loader.epochs(args.epochs):
        training.losses.clear()
        for batch in training.loader:
            training.step(batch)
        reached = training.accuracy(held_out)
        loss = float(torch.stack(training.losses).mean())
        steps = str(len(training.losses))
        table.row(str(epoch + 1), steps, f"{loss:.4f}", f"{reached:.1%}")
    verdict = "reached" if reached >= GOAL else "NOT reached"
    print(f"held-out accuracy {reached:.1%}: the goal of {GOAL:.0%} was {verdict}")
    return 1 if reached < GOAL and args.is_default else 0


if __name__ == "__main__":
    sys.exit(main())
