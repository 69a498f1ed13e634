"""Trains a byte-level language model on text that torch_s3io reads as windows of a token stream.

    python examples/train_tokens.py                            # half a minute
    python examples/train_tokens.py --gigabytes 2 --batch-size 512 --steps 10000    # on a GPU

What it shows: overlapping windows of .bin files that are nothing but tokens (here bytes), in
shuffled order, and their conversion to the int64 that embeddings ask for. The text is real: the
sources of Python's standard library. A step's loss is taken before the model learns from it: as
long as nothing is read twice, that is the loss on unseen text. A model that knew only how often
each byte occurs would reach the unigram entropy of the text.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from common import (
    Meter,
    Table,
    pick_device,
)
from python_sources import parse_arguments, python_files, unigram_entropy
from shards import shard_sizes, write_shards
from torch import nn
from torch.utils.data import DataLoader

import torch_s3io as s3io

BLOCK = 1024  # bytes: files hold whole blocks
GOAL = 0.6  # of the unigram entropy

Text = npt.NDArray[np.uint8]


def load_text(folder: Path) -> Text:
    """All Python files below the folder, as whole blocks [N, BLOCK]."""
    text = np.frombuffer(b"".join(file.read_bytes() for file in python_files(folder)), np.uint8)
    if len(text) < 64 * BLOCK:
        sys.exit(f"train_tokens.py: --source {folder}: {len(text)} bytes of Python, too little")
    return text[: len(text) // BLOCK * BLOCK].reshape(-1, BLOCK)


def write_text(args: argparse.Namespace, text: Text) -> list[Path]:
    """The files of the text, as often as asked for, written unless there."""
    repeats = max(1, round(args.gigabytes * 1e9 / text.nbytes)) if args.gigabytes else 1
    settings = {"text_crc32": zlib.crc32(text.data), "repeats": repeats, "order": "as loaded"}
    sizes = shard_sizes("tokens", repeats * text.nbytes, BLOCK)
    write_shards(args.data, sizes, itertools.repeat(text, repeats), **settings)
    return [args.data / name for name in sizes]


class ByteModel(nn.Module):
    """A GRU that predicts each next byte of a window."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 256)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows [B, T + 1] of bytes as int64; the mean loss in nats per byte."""
        states, _ = self.gru(self.embed(windows[:, :-1]))
        return nn.functional.cross_entropy(
            self.head(states).flatten(0, 1), windows[:, 1:].flatten()
        )


def batches(meter: Meter, loader: DataLoader[torch.Tensor], steps: int) -> Iterator[torch.Tensor]:
    """So many batches, from as many epochs as that takes, each in an order of its own."""
    left = steps
    for _ in meter.dataset.epochs(steps):  # each has one at least
        for batch in meter.watch(loader):
            yield batch
            left -= 1
            if not left:
                return


def train(args: argparse.Namespace, meter: Meter, loader: DataLoader[torch.Tensor]) -> float:
    """Trains for args.steps steps; the mean loss over the last row of the table it prints."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = pick_device()
    model = ByteModel(args.hidden).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    print(f"model: {sum(p.numel() for p in model.parameters()):,} parameters on {device}")

    table = Table("step", "loss", *meter.columns)
    losses: list[torch.Tensor] = []
    for step, windows in enumerate(batches(meter, loader, args.steps), start=1):
        loss = model(windows.to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if step % args.report_every == 0 or step == args.steps:
            mean = float(torch.stack(losses).mean())
            table.row(str(step), f"{mean:.4f}", *meter.lap())
            losses = []
    return mean


def main() -> int:
    args = parse_arguments(__doc__, data="data/tokens", batch_size=32, window=192, hidden=192)
    text = load_text(args.source)
    entropy = unigram_entropy(np.bincount(text.ravel(), minlength=256))
    files = write_text(args, text)
    print(f"unigram entropy of the text: {entropy:.4f} nats")

    dataset = s3io.RecordDataset.from_tokens(
        files,
        window=args.window + 1,
        stride=args.window,
        dtype="uint8",
        as_dtype=torch.int64,
        batch_size=args.batch_size,
        shuffle=True,
        seed=args.seed,
        direct=args.direct,
        engine=args.engine,
    )
    meter = Meter(dataset, args.window + 1)
    loss = train(args, meter, DataLoader(dataset, batch_size=None, num_workers=args.workers))
    print(meter.how_it_was_read())

    goal = GOAL * entropy
    verdict = "reached" if loss < goal else "NOT reached"
    print(f"last loss {loss:.4f} nats: the goal of {goal:.4f}, {GOAL:.0%} of it, was {verdict}")
    return 1 if loss >= goal and args.is_default else 0


if __name__ == "__main__":
    sys.exit(main())
