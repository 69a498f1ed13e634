"""Trains a byte-level language model on documents that do not see each other.

    python examples/train_documents.py                         # a minute
    python examples/train_documents.py --gigabytes 2 --batch-size 128 --steps 10000    # on a GPU

What it shows: documents in the files that Megatron reads (.bin and .idx), here each a source file
of Python's standard library; windows over all of them, in shuffled order; attention that is masked
by document, and positions that begin anew in each. In the middle it stops: model, optimizer and
place are saved, everything is made anew, and the rest of the epoch comes in the same order.
A model that knew only how often each byte occurs would reach the unigram entropy of the text.
"""

from __future__ import annotations

import argparse
import itertools
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import (
    Meter,
    Table,
    bytes_text,
    pick_device,
)
from python_sources import parse_arguments, python_files, unigram_entropy
from torch import nn

import torch_s3io as s3io

END = 0  # a byte that no source has: the end of a document
GOAL = 0.7  # of the unigram entropy
HEADS = 4

Document = npt.NDArray[np.uint8]
Batch = dict[str, Any]


def load_documents(folder: Path) -> list[Document]:
    """The Python files below the folder, each with its end."""
    sources = (file.read_bytes() for file in python_files(folder))
    texts = [source.replace(bytes([END]), b" ") + bytes([END]) for source in sources]
    if sum(map(len, texts)) < 100_000:
        sys.exit(f"train_documents.py: --source {folder}: too little Python in it")
    return [np.frombuffer(text, np.uint8) for text in texts]


def write_megatron(prefix: Path, documents: list[Document], repeats: int) -> None:
    """``prefix.bin``: the bytes of all documents; ``prefix.idx``: where each of them is. Does
    nothing where both are there, of the size that they would have."""
    lengths = np.array([len(document) for document in documents] * repeats, "<i4")
    starts = np.cumsum(lengths, dtype="<i8") - lengths
    count = len(lengths)
    head = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 1, count, count + 1)  # type 1: uint8
    parts = [lengths, starts, np.arange(count + 1, dtype="<i8")]
    index = head + b"".join(part.tobytes() for part in parts)
    sizes = {".bin": int(lengths.sum()), ".idx": len(index)}
    paths = {ending: prefix.with_name(prefix.name + ending) for ending in sizes}
    if all(paths[one].is_file() and paths[one].stat().st_size == sizes[one] for one in sizes):
        print(f"data: {prefix}: {bytes_text(sum(sizes.values()))}, already there")
        return
    prefix.parent.mkdir(parents=True, exist_ok=True)
    partial = prefix.with_name(prefix.name + ".partial")
    with open(partial, "wb") as file:
        for document in itertools.chain(*itertools.repeat(documents, repeats)):
            file.write(document.data)
    os.replace(partial, paths[".bin"])
    paths[".idx"].write_bytes(index)
    print(f"data: {prefix}: {bytes_text(sum(sizes.values()))}, written now")


class ByteModel(nn.Module):
    """A transformer of one layer that predicts each next byte of a document."""

    def __init__(self, window: int, hidden: int) -> None:
        super().__init__()
        self.window = window
        self.embed = nn.Embedding(256, hidden)
        self.place = nn.Embedding(window, hidden)
        self.mix = nn.Conv1d(hidden, hidden, 3, padding=2)  # a look at the two bytes before
        self.norms = nn.ModuleList([nn.LayerNorm(hidden), nn.LayerNorm(hidden)])
        self.heads = nn.Linear(hidden, 3 * hidden)
        self.joined = nn.Linear(hidden, hidden)
        self.wide = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )
        self.head = nn.Linear(hidden, 256)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The mean loss in nats per byte, of those whose next one is in the same document."""
        ids = batch["input_ids"].view(-1, self.window)
        positions = batch["position_ids"].view(-1, self.window)
        owners = owners_of(batch["cu_seq_lens_q"]).view(-1, self.window)
        states = self.embed(ids) + self.place(positions)
        states = states + self.mix(states.transpose(1, 2))[..., : self.window].transpose(1, 2)
        states = states + self.attend(self.norms[0](states), owners)
        states = states + self.wide(self.norms[1](states))
        logits, targets = self.head(states[:, :-1]), ids[:, 1:].clone()
        targets[owners[:, :-1] != owners[:, 1:]] = -100  # left out
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def attend(self, states: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        """Each byte looks at those before it in its own document."""
        parts = self.heads(states).unflatten(2, (3 * HEADS, -1)).transpose(1, 2)
        query, key, value = parts.chunk(3, 1)
        same = owners[:, None, :, None] == owners[:, None, None, :]
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=same.tril()
        )
        joined: torch.Tensor = self.joined(attended.transpose(1, 2).flatten(2))
        return joined


def owners_of(ends: torch.Tensor) -> torch.Tensor:
    """Of each token of a batch, the number of its document."""
    numbers = torch.arange(len(ends) - 1, device=ends.device)
    return numbers.repeat_interleave(ends.diff())


class Training:
    """All that a run has, as it is made once and made anew from a checkpoint."""

    def __init__(self, args: argparse.Namespace, prefix: Path) -> None:
        torch.manual_seed(args.seed)
        self.device = pick_device()
        self.model = ByteModel(args.window + 1, args.hidden).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=4e-3)
        self.dataset = s3io.TokenDataset(
            prefix,
            window=args.window + 1,
            return_documents=True,
            batch_size=args.batch_size,
            shuffle=True,
            seed=args.seed,
            direct=args.direct,
            engine=args.engine,
        )
        self.loader = s3io.DataLoader(self.dataset, num_workers=args.workers)
        self.meter = Meter(self.dataset, args.batch_size * (args.window + 1))

    def batches(self, steps: int) -> Iterator[Batch]:
        """So many, from as many epochs as that takes."""
        left = steps
        for _ in self.loader.epochs(1 << 20):
            for batch in self.meter.watch(self.loader):
                yield batch
                left -= 1
                if not left:
                    return

    def step(self, batch: Batch) -> torch.Tensor:
        moved = {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        loss: torch.Tensor = self.model(moved)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])


def train(training: Training, args: argparse.Namespace, table: Table, steps: range) -> float:
    """The mean loss over the last row of the table that it prints."""
    losses: list[torch.Tensor] = []
    for step, batch in zip(steps, training.batches(len(steps)), strict=True):
        losses.append(training.step(batch))
        if step % args.report_every == 0 or step == steps[-1]:
            mean = float(torch.stack(losses).mean())
            table.row(str(step), f"{mean:.4f}", *training.meter.lap())
            losses = []
    return mean


def main() -> int:
    args = parse_arguments(__doc__, data="data/documents", batch_size=16, window=128, hidden=96)
    torch.set_num_threads(args.threads)
    documents = load_documents(args.source)
    size = sum(map(len, documents))
    repeats = max(1, round(args.gigabytes * 1e9 / size)) if args.gigabytes else 1
    prefix = args.data / "python"
    write_megatron(prefix, documents, repeats)
    entropy = unigram_entropy(sum(np.bincount(one, minlength=256) for one in documents))
    print(f"unigram entropy of the text: {entropy:.4f} nats")

    training = Training(args, prefix)
    count = sum(p.numel() for p in training.model.parameters())
    print(f"model: {count:,} parameters on {training.device}; {training.dataset}")
    table = Table("step", "loss", "batches/s", *training.meter.columns[1:])
    half = max(1, args.steps // 2)
    loss = train(training, args, table, range(1, half + 1))
    if half < args.steps:
        checkpoint = args.data / "checkpoint.pt"
        torch.save(training.state(), checkpoint)
        training = Training(args, prefix)
        training.load(torch.load(checkpoint, weights_only=True))
        print(f"stopped, and went on from {checkpoint}")
        loss = train(training, args, table, range(half + 1, args.steps + 1))
    print(training.meter.how_it_was_read())

    goal = GOAL * entropy
    verdict = "reached" if loss < goal else "NOT reached"
    print(f"last loss {loss:.4f} nats: the goal of {goal:.4f}, {GOAL:.0%} of it, was {verdict}")
    return 1 if loss >= goal and args.is_default else 0


if __name__ == "__main__":
    sys.exit(main())
