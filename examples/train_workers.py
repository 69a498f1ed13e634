"""Trains a small CNN on handwritten digits, read by worker processes, on the GPU if there is one.

    python examples/train_workers.py                                   # some seconds
    python examples/train_workers.py --gigabytes 1 --batch-size 4096 --epochs 1

What it shows: two workers read and transform the batches, which reach the training loop where the
workers made them; DevicePrefetcher copies the next ones to the GPU while a step runs (on the CPU it
passes them through). Every epoch prints what the loader did. The data are those of train_digits.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from common import Table, pick_device
from torch import nn
from train_digits import GOAL, HELD_OUT, RECORD, make_model, parse_arguments, write_digits

import torch_s3io as s3io

Batch = dict[str, torch.Tensor]


def to_floats(batch: Batch) -> Batch:
    """Runs in the workers. The labels stay where the device put them; the images become new."""
    return {"label": batch["label"], "image": batch["image"].unsqueeze(1).float() / 16}


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Any]
) -> float:
    losses = []
    for batch in batches:
        loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    hits = 0
    for batch in batches:
        hits += int((model(batch["image"]).argmax(1) == batch["label"]).sum())
    return hits / HELD_OUT


def main() -> int:
    args = parse_arguments(__doc__, workers=2)
    train_files, held_out_file = write_digits(args)
    options: dict[str, Any] = {
        "dtype": RECORD,
        "transform": to_floats,
        "direct": args.direct,
        "engine": args.engine,
    }
    dataset = s3io.RecordDataset(
        train_files, batch_size=args.batch_size, shuffle=True, seed=args.seed, **options
    )
    held_out = s3io.RecordDataset(held_out_file, batch_size=HELD_OUT, **options)

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = pick_device()
    model = make_model().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = s3io.DataLoader(dataset, num_workers=args.workers)
    batches = s3io.DevicePrefetcher(loader, device)
    print(f"{args.workers} workers, training on {device}")

    table = Table("epoch", "loss", "accuracy", "samples/s", "GB/s", "waiting", "in place")
    before = loader.stats()
    for epoch in loader.epochs(args.epochs):
        loss = train_epoch(model, optimizer, batches)
        reached = accuracy(model, s3io.DevicePrefetcher(s3io.DataLoader(held_out), device))
        now = loader.stats()
        since = {key: now[key] - before[key] for key in ("batch_bytes", "loop_s", "loop_wait_s")}
        in_place = now.get("received_tensors", 0) - before.get("received_tensors", 0)
        before = now
        table.row(
            str(epoch + 1),
            f"{loss:.4f}",
            f"{reached:.1%}",
            f"{since['batch_bytes'] / RECORD.itemsize / since['loop_s']:,.0f}",
            f"{since['batch_bytes'] / 1e9 / since['loop_s']:.3f}",
            f"{since['loop_wait_s'] / since['loop_s']:.0%}",
            f"{in_place} tensors",
        )
    verdict = "reached" if reached >= GOAL else "NOT reached"
    print(f"held-out accuracy {reached:.1%}: the goal of {GOAL:.0%} was {verdict}")
    return 1 if reached < GOAL and args.is_default else 0


if __name__ == "__main__":
    sys.exit(main())
