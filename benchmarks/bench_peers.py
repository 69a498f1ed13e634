"""RecordDataset against what a user would pick instead, on the same records.

Every contestant delivers the same records in batches of the same size as uint8 tensors to the main
process, where one byte of every page is read. Each is checked first: a whole epoch must bring every
record once. Then all run in turns, an epoch each, their files dropped from the page cache (cold) or
brought into it (warm). Formats of their own hold the same records, and were written before.
Contestants that are not installed are left out, with the reason: `make peers` installs them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import peers
import torch
from peers_workload import SHUFFLE_BUFFER, THREADS, WORKERS, Contestant, Left, Workload

from torch_s3io.bench import data
from torch_s3io.bench.config import DataConfig

PAGE_BYTES = 4096
SHAPES = ((4096, 256, False), (114_660, 64, False), (2_828_486, 4, True))  # a file a record?


def workload_files(folder: Path, size_gib: float, shape: tuple[int, int, bool]) -> DataConfig:
    record_bytes, _, one_per_file = shape
    count = int(size_gib * common.GIB) // record_bytes
    files = count if one_per_file else 4
    config = DataConfig(
        folder=str(folder),
        files=files,
        records_per_file=1 if one_per_file else count // files,
        record_bytes=record_bytes,
    )
    data.check_space(config)
    missing = data.missing(config)
    data.make(config, common.progress(missing, len(missing), "writing files"))
    return config


def head_of(batch: torch.Tensor) -> int:
    """Sum of the first eight bytes of every record: tells records apart, whatever their order."""
    return int(batch[:, :8].reshape(-1).clone().view(torch.int64).sum(dtype=torch.int64))


def expected_heads(workload: Workload) -> int:
    total = 0
    for path in workload.paths:
        array = np.memmap(path, np.uint8, "r").reshape(-1, workload.record_bytes)
        total += int(np.ascontiguousarray(array[:, :8]).view(np.int64).sum())
    return (total + (1 << 63)) % (1 << 64) - (1 << 63)


def check(name: str, contestant: Contestant, workload: Workload, heads: int) -> None:
    """A whole epoch: every record once. It is the warm-up, too."""
    count = total = 0
    for batch in contestant.batches:
        if batch.dtype != torch.uint8 or batch.shape[1:] != (workload.record_bytes,):
            raise Left(f"{name} delivered {batch.dtype} {list(batch.shape)}")
        count += len(batch)
        total += head_of(batch)
    total = (total + (1 << 63)) % (1 << 64) - (1 << 63)
    if (count, total) != (workload.count, heads):
        raise Left(f"an epoch brought {count} records of {workload.count}, or others")


def epoch(contestant: Contestant, warm: bool) -> common.Sample:
    (data.bring_into_cache if warm else data.drop_from_cache)(list(contestant.files))
    shares = [common.cached_share(path) for path in contestant.files if path.stat().st_size]
    if not warm and sum(shares) > 0.01 * len(shares):
        raise RuntimeError(
            f"{contestant.files[0].parent} stays in the page cache: mapped, or in use"
        )

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        received = touched = 0
        for batch in contestant.batches:
            received += batch.numel()
            touched += int(batch[:, ::PAGE_BYTES].sum())
        if touched == 0:
            raise SystemExit("the data is all zeros, or there is none")
        return received, time.perf_counter() - start

    return common.measured(work)


def entered(
    workload: Workload, folder: Path, wanted: str, left: dict[str, str]
) -> dict[str, Contestant]:
    """Those that are installed and deliver what they should; reasons of the others go to `left`."""
    heads = expected_heads(workload)
    contestants = {}
    for name, (package, make) in peers.CONTESTANTS.items():
        if wanted and not name.startswith(peers.OURS) and wanted.lower() not in name.lower():
            continue
        try:
            peers.version_of(package)
            contestant = make(workload, folder)
            check(name, contestant, workload, heads)
            contestants[name] = contestant
        except Left as reason:
            left[name] = str(reason)
        except Exception as error:
            if name.startswith(peers.OURS):
                raise
            left[name] = f"{type(error).__name__}: {str(error)[:200]}"
    return contestants


def bench(report: common.Report, args: argparse.Namespace, warm: bool, shuffled: bool) -> None:
    order = "shuffled" if shuffled else "in order"
    title = f"Peers: {order}, {'warm' if warm else 'cold'} page cache"
    if not report.wants(title):
        return
    columns, all_samples = ["contestant"], {}
    left: dict[str, str] = {}
    table: dict[str, list[str]] = {name: [name] for name in peers.CONTESTANTS}
    for shape in SHAPES:
        record_bytes, batch_size, _ = shape
        name = f"{record_bytes:,} B x {batch_size}"
        config = workload_files(args.data, args.size_gib, shape)
        workload = Workload(
            tuple(data.paths_of(config)), record_bytes, config.records_per_file, batch_size,
            shuffled, warm,
        )  # fmt: skip
        contestants = entered(workload, args.data / "peers", args.peer, left)
        runs: dict[str, Callable[[], common.Sample]] = {
            name: partial(epoch, contestant, warm) for name, contestant in contestants.items()
        }
        samples = common.in_rounds(runs, args.rounds, name)
        all_samples[name] = samples
        columns += [f"{name}, GB/s", "ours / it"]
        for contestant, row in table.items():
            row += _cells(samples, contestant)
        del contestants, runs
    shown = [row for row in table.values() if any(row[1:])]
    report.table(title, _note(left), columns, shown, all_samples)


def _cells(samples: dict[str, list[common.Sample]], name: str) -> list[str]:
    if name not in samples:
        return ["", ""]
    speed = common.spread(common.values(samples[name], "gb_per_s"))
    if name.startswith(peers.OURS):
        return [speed, ""]
    ratios = common.ratios(samples[peers.OURS], samples[name], "gb_per_s")
    return [speed, common.spread(ratios, unit="x")]


def _note(left: dict[str, str]) -> str:
    versions: dict[str, Any] = {}
    for package, _ in peers.CONTESTANTS.values():
        try:
            versions[package] = peers.version_of(package)
        except Left:
            continue
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    text = (
        f"Whole epochs, after one that checked the records; {THREADS} threads or "
        f"{WORKERS} workers. tf.data and WebDataset shuffle within buffers of "
        f"{SHUFFLE_BUFFER} records, the others all of them. Where the cache is cold, "
        "RecordDataset is made anew for each epoch, with its defaults. With 2 workers, which were "
        "started before the measurement, it has direct='require'. It reads nothing of an epoch "
        "before that begins. "
        "The set fits into memory, so what readahead brings for the others stays there. "
        f"{listed}."
    )
    reasons = "".join(f"\n- not here: {name}: {reason}" for name, reason in left.items())
    return text + ("\n" + reasons if reasons else "")


def main() -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument("--peer", default="", metavar="TEXT", help="only those whose names have it")
    parser.set_defaults(size_gib=1.0, rounds=5)
    args = common.parse(parser)
    warnings.filterwarnings("ignore", category=UserWarning)
    args.data.mkdir(parents=True, exist_ok=True)
    report = common.Report(args, common.machine(args.data))
    for shuffled in (False, True):
        for warm in (False, True):
            bench(report, args, warm, shuffled)
    report.save()


if __name__ == "__main__":
    main()
