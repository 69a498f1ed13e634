"""From the page cache to a CUDA device: bandwidth of the buffers, and overlap. Needs a GPU.

* Buffers: host-to-device copies of batches that two workers made, in their page-locked pools,
  against copies of the same size from memory that torch page-locked.
* Loop: DevicePrefetcher over DataLoader with two workers, with and without computing in between,
  against the loader alone and against computing alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch

import torch_s3io as s3io

SIZES_MB = (1, 8, 38, 128)
COPIES = 40


def make_loader(path: Path, batch_bytes: int) -> s3io.DataLoader:
    dataset = s3io.RecordDataset(
        path, dtype=np.uint8, shape=4096, batch_size=batch_bytes // 4096, drop_last=True
    )
    return s3io.DataLoader(dataset, num_workers=2)


def copy_speed(tensors: list[torch.Tensor], target: torch.Tensor) -> common.Sample:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for number in range(COPIES):
        target.copy_(tensors[number % len(tensors)], non_blocking=True)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {"gb_per_s": COPIES * target.nbytes / common.GB / seconds}


def bench_buffers(report: common.Report, path: Path, args: argparse.Namespace) -> None:
    rows, all_samples = [], {}
    for size_mb in SIZES_MB:
        loader = make_loader(path, int(size_mb * 1e6))
        batches = iter(loader)
        held = [next(batches), next(batches)]
        if not all(batch.is_pinned() for batch in held):
            raise SystemExit("batches from workers are not page-locked here")
        plain = [torch.empty_like(batch).pin_memory() for batch in held]
        target = torch.empty_like(held[0], device="cuda")
        samples = common.in_rounds(
            {
                "plain": partial(copy_speed, plain, target),
                "ours": partial(copy_speed, held, target),
            },
            args.rounds,
            f"{size_mb} MB",
        )
        all_samples[f"{size_mb} MB"] = samples
        ratio = common.ratios(samples["ours"], samples["plain"], "gb_per_s")
        rows.append([
            f"{size_mb} MB",
            common.spread(common.values(samples["ours"], "gb_per_s")),
            common.spread(common.values(samples["plain"], "gb_per_s")),
            common.spread(ratio, unit="x"),
        ])  # fmt: skip
        del held, batches, loader
    columns = ["batch", "our buffers, GB/s", "pin_memory, GB/s", "ours / pin_memory"]
    note = f"{torch.cuda.get_device_name()}; {COPIES} copies in a row, two buffers in turn."
    report.table("Host to device: buffers", note, columns, rows, all_samples)


def bench_loop(report: common.Report, path: Path, args: argparse.Namespace) -> None:
    batch_bytes = int(38e6)
    loader = make_loader(path, batch_bytes)
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def compute() -> None:
        for _ in range(12):
            torch.mm(matrix, matrix)

    def epoch(batches: Iterable[torch.Tensor], computing: bool) -> common.Sample:
        torch.cuda.synchronize()
        start = time.perf_counter()
        received = 0
        for batch in batches:
            received += batch.nbytes
            if computing:
                compute()
                batch.sum()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return {"gb_per_s": received / common.GB / seconds, "ms": seconds * 1e3}

    def compute_alone() -> common.Sample:
        stand_in = torch.empty(batch_bytes // 4096 * 4096, dtype=torch.uint8, device="cuda")
        return epoch((stand_in for _ in range(len(loader))), True)

    samples = common.in_rounds(
        {
            "loader alone": lambda: epoch(loader, False),
            "on the device": lambda: epoch(s3io.DevicePrefetcher(loader, "cuda"), False),
            "computing alone": compute_alone,
            "on the device, computing": lambda: epoch(s3io.DevicePrefetcher(loader, "cuda"), True),
        },
        args.rounds,
        "loop",
    )
    rows = [
        [
            name,
            common.spread(common.values(runs, "gb_per_s")),
            common.spread(common.values(runs, "ms"), ".0f"),
        ]
        for name, runs in samples.items()
    ]
    stats = loader.stats()
    assert isinstance(loader.dataset, s3io.RecordDataset)
    note = (
        f"{torch.cuda.get_device_name()}; 38 MB batches from 2 workers, page cache warm; copied by "
        f"the pin thread or the hand-over: {stats['held_out_tensors']} of "
        f"{stats['received_tensors']} batches; engine {loader.dataset.stats()['engine']}."
    )
    report.table("Host to device: loop", note, ["loop", "GB/s", "ms per epoch"], rows, samples)


def main() -> None:
    args = common.parse(common.argument_parser(__doc__), min_gib=0.5)
    if not torch.cuda.is_available():
        raise SystemExit("bench_h2d.py needs a CUDA device, and this PyTorch finds none")
    path = common.data_file(args.data, args.size_gib)
    common.bring_into_cache(path)
    report = common.Report(args, common.machine(args.data))
    bench_buffers(report, path, args)
    bench_loop(report, path, args)
    report.save()


if __name__ == "__main__":
    main()
