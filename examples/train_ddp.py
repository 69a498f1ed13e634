"""Trains on several ranks, is killed, and goes on with any number of them.

    torchrun --nproc-per-node=2 examples/train_ddp.py                  # on GPUs if there are two
    torchrun --nproc-per-node=2 examples/train_ddp.py --stop-after 40  # as if it were killed ...
    torchrun --nproc-per-node=3 examples/train_ddp.py                  # ... and goes on with three

What it shows: every rank reads its share of one shuffled order; model, optimizer and loader are
checkpointed together by torch.distributed.checkpoint; and a run that was interrupted ends with
every record of every epoch read once, whatever the number of ranks before and after. The checkpoint
counts how often each record was learned from; at the end it is checked. It may lie in a bucket:
--checkpoint s3://bucket/run.

The data: points on a line with noise. The model finds its slope.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from common import not_negative, option, positive
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.stateful import Stateful
from torch.nn.parallel import DistributedDataParallel

import torch_s3io as s3io

RECORD = np.dtype([("x", "f4"), ("y", "f4")])
SLOPE, OFFSET = 3.0, -1.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/ddp"), metavar="DIR")
    option(parser, "--records", type=positive, default=20_011, help="in the data set")
    option(parser, "--batch-size", type=positive, default=64, help="records per rank and step")
    option(parser, "--epochs", type=positive, default=2, help="through all records")
    option(parser, "--workers", type=not_negative, default=1, help="DataLoader processes per rank")
    parser.add_argument(
        "--checkpoint", metavar="PATH_OR_URL",
        help="folder, or s3://bucket/prefix, of the checkpoints (default: in DIR)")  # fmt: skip
    option(parser, "--save-every", type=positive, default=20, help="steps between checkpoints")
    option(parser, "--stop-after", type=not_negative, default=0, help="exit in this step; 0: never")
    return parser.parse_args()


def write_points(folder: Path, records: int) -> Path:
    """The data set, written by rank 0 unless it is there."""
    path = folder / f"points-{records}.bin"
    if dist.get_rank() == 0 and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        points = np.empty(records, RECORD)
        points["x"] = random.normal(size=records)
        points["y"] = SLOPE * points["x"] + OFFSET + 0.1 * random.normal(size=records)
        points.tofile(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    dist.barrier()
    return path


class Training(Stateful):
    """What a checkpoint holds: the model, the optimizer, and how often each record was read.

    ``seen``: int64 [records]: in this rank only what it read itself; what earlier runs read is with
    rank 0.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, records: int) -> None:
        self.model = model
        self.optimizer = optimizer
        self.seen = torch.zeros(records, dtype=torch.int64)

    def seen_by_all(self) -> torch.Tensor:
        total = self.seen.to(next(self.model.parameters()).device, copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "seen": self.seen_by_all()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state_dict["model"],
            optim_state_dict=state_dict["optimizer"],
        )
        self.seen.copy_(state_dict["seen"] if dist.get_rank() == 0 else torch.zeros(()))


def latest_checkpoint(folder: str) -> str | None:
    """The newest one that is whole: its metadata are written last."""
    try:
        names = s3io.open_store(folder).list(f"{folder}/step-")
    except s3io.NotFoundError:  # there is no such folder yet
        return None
    whole = [name.removesuffix("/.metadata") for name in names if name.endswith("/.metadata")]
    return max(whole, default=None)


def join_the_ranks() -> torch.device:
    """Over nccl where this machine has a GPU for each of its ranks, else over gloo, on CPUs."""
    if torch.cuda.device_count() < int(os.environ["LOCAL_WORLD_SIZE"]):
        dist.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)  # nccl moves what the loaders compare over the current one
    dist.init_process_group("nccl", device_id=device)
    return device


def train(args: argparse.Namespace, device: torch.device) -> bool:
    path = write_points(args.data, args.records)
    # Which share of the records is this rank's follows from torch.distributed.
    dataset = s3io.RecordDataset(
        path, dtype=RECORD, batch_size=args.batch_size, shuffle=True, return_index=True
    )
    loader = s3io.DataLoader(dataset, num_workers=args.workers)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(1, 1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    training = Training(model, optimizer, args.records)
    state = {"training": training, "loader": loader}

    checkpoints = args.checkpoint or str(args.data / "checkpoints")
    found = latest_checkpoint(checkpoints)
    step = 0
    if found is not None:
        reader = s3io.checkpoint.Reader(found)
        dcp.load(dict(state), storage_reader=reader)  # PyTorch 2.4 changes the dict itself
        step = int(found.rpartition("step-")[2])
        say(
            f"going on after step {step}, in epoch {loader.epoch}, on {dist.get_world_size()} ranks"
        )

    batches = s3io.DevicePrefetcher(loader, device)
    for epoch in loader.epochs(args.epochs):
        for points, index in batches:
            if args.stop_after and step == args.stop_after:
                say(f"killed in step {step}")
                sys.stdout.flush()
                os._exit(1)
            loss = nn.functional.mse_loss(model(points["x"][:, None]), points["y"][:, None])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()  # beside gradients, PyTorch 2.4 cannot save SGD
            training.seen += torch.bincount(index.cpu(), minlength=args.records)
            step += 1
            if step % args.save_every == 0:
                name = f"{checkpoints}/step-{step:08d}"
                dcp.save(state, storage_writer=s3io.checkpoint.Writer(name, overwrite=True))
        say(f"epoch {epoch}: loss {loss.item():.4f} after step {step}")

    seen = training.seen_by_all()
    # Where fewer records than ranks are left at an epoch's end, the ranks without one get another.
    padding = int(seen.sum()) - args.epochs * len(seen)
    is_exact = bool((seen >= args.epochs).all()) and padding < args.epochs * dist.get_world_size()
    weight = model.module.weight.item()
    say(f"slope {weight:.3f}, and {SLOPE} was meant")
    verdict = "every record was read" if is_exact else "NOT every record was read"
    say(f"{verdict} {args.epochs} times; padding: {padding} of {len(seen)}")
    return is_exact


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def main() -> int:
    args = parse_arguments()
    if "LOCAL_WORLD_SIZE" not in os.environ:
        sys.exit("torchrun starts this: torchrun --nproc-per-node=2 examples/train_ddp.py")
    device = join_the_ranks()
    say(f"{dist.get_world_size()} ranks over {dist.get_backend()}, the model on {device.type}")
    try:
        return 0 if train(args, device) else 1
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
