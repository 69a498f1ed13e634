"""The order of an epoch: positions per second, how long an epoch takes to begin, block shuffling.

The first table asks for records in batches, one core. The second makes a whole permutation, which
torch's RandomSampler and numpy do before the first record; ours makes one batch of it. The third
looks at how random blocks are: batches of records that lie sorted by class.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import Report, Sample, argument_parser, in_rounds, machine, parse, spread, values

from torch_s3io import _C

SIZES = {"1e9": 10**9, "2^30 + 1": 2**30 + 1, "2^50 + 1": 2**50 + 1}
BATCH = 4096
BLOCK = 256
BILLION = 10**9
BLOCKS_AND_WINDOWS = [
    *((block, 1) for block in (1, 4, 16, 64, 256)),
    *((32, window) for window in (1, 8, 64, 512)),
]

Order = _C.RecordOrder


def orders(size: int) -> dict[str, Order]:
    half = Order.shuffled(size // 2, 1)
    return {
        "shuffled": Order.shuffled(size, 1),
        f"blocks of {BLOCK}": Order.block(size, BLOCK, 1),
        f"windows of 64 blocks of {BLOCK}": Order.block(size, BLOCK, 1).windowed(64 * BLOCK, 1),
        "split of shuffled": Order.shuffled(size // 2, 1).select([(0, size // 2, (size, 2))]),
        "mix of two": Order.mix([(half, 0), (half, size // 2)], [7, 3], 1, size),
    }


def million_positions_per_s(order: Order, seconds: float) -> Sample:
    """By the processor's clock of this thread: other programs on the machine do not count."""
    count, epoch = 1 << 20, 0
    start = time.thread_time()
    while (elapsed := time.thread_time() - start) < seconds:
        order.records(epoch, order.num_positions // 3, count)
        epoch += 1
    return {"million_per_s": epoch * count / elapsed / 1e6}


def milliseconds(work: Callable[[], object]) -> Sample:
    start = time.perf_counter()
    work()
    return {"ms": (time.perf_counter() - start) * 1e3}


def bench_positions(report: Report, args: Namespace) -> None:
    title = "Order: positions per second"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    for name in orders(BILLION):
        row = [name]
        for label, size in SIZES.items():
            work = partial(million_positions_per_s, orders(size)[name], args.seconds / 4)
            samples = in_rounds({"ours": work}, args.rounds, f"{name}, {label}")["ours"]
            all_samples[f"{name}, {label}"] = samples
            row.append(spread(values(samples, "million_per_s"), ".0f"))
        rows.append(row)
    note = "Million positions per second and core, in calls of 2^20 from a third of the epoch on."
    report.table(title, note, ["order", *SIZES], rows, all_samples)


def first_batch(order: Order, percent: int) -> object:
    start = order.num_positions // 100 * percent
    plan = _C.EpochPlan(order=order, epoch=1, batch_size=BATCH, start=start)
    return plan.records(0)


def bench_start(report: Report, args: Namespace) -> None:
    title = "Order: beginning an epoch"
    if not report.wants(title):
        return
    small = 10**7
    random = np.random.default_rng(1)
    contestants: dict[str, Callable[[], object]] = {
        "torch.randperm(1e7)": partial(torch.randperm, small),
        "numpy Generator.permutation(1e7)": partial(random.permutation, small),
    }
    for name, order in orders(BILLION).items():
        contestants[f"{name}, 1e9"] = partial(first_batch, order, 0)
        contestants[f"{name}, 1e9, at 99 %"] = partial(first_batch, order, 99)
    work = {name: partial(milliseconds, call) for name, call in contestants.items()}
    samples = in_rounds(work, args.rounds, title)
    rows = [[name, spread(values(runs, "ms"), ",.3f")] for name, runs in samples.items()]
    note = (
        f"Until the records of the first {BATCH:,} positions are known: torch and numpy make the "
        "whole permutation for that, of a hundred times fewer records."
    )
    report.table(title, note, ["what", "ms"], rows, samples)


def bench_blocks(report: Report, args: Namespace) -> None:
    title = "Order: how random blocks are"
    if not report.wants(title):
        return
    size, classes, batch = 1 << 20, 1000, 256
    labels = np.arange(size) * classes // size
    centre = labels.mean()
    uniform = labels.var() / batch * (size - batch) / (size - 1)
    rows, samples = [], {}
    for block, window in BLOCKS_AND_WINDOWS:
        order = Order.block(size, block, 1).windowed(window * block, 1)
        ratios, distinct = [], []
        for epoch in range(args.rounds):
            batches = labels[order.records(epoch, 0, size)].reshape(-1, batch)
            ratios.append(float(((batches.mean(axis=1) - centre) ** 2).mean() / uniform))
            distinct.append(float(np.mean([len(np.unique(one)) for one in batches[:400]])))
        samples[f"{block} x {window}"] = [
            {"variance": ratio, "classes": seen}
            for ratio, seen in zip(ratios, distinct, strict=True)
        ]
        rows.append([f"{block}", f"{window}", spread(ratios, ".1f", "x"), spread(distinct, ".1f")])
    note = (
        f"{size:,} records sorted by class ({classes}), batches of {batch}: variance of the "
        "batches' mean label against that of uniform shuffling; different classes in a batch. One "
        "round is one epoch."
    )
    columns = ["block_records", "window_blocks", "variance", "classes per batch"]
    report.table(title, note, columns, rows, samples)


def main() -> None:
    args = parse(argument_parser(__doc__))
    here = machine(Path.cwd())
    del here["storage"]  # nothing is read
    report = Report(args, here)
    bench_positions(report, args)
    bench_start(report, args)
    bench_blocks(report, args)
    report.save()


if __name__ == "__main__":
    main()
