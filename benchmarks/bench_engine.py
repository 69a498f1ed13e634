"""The I/O engine against fio, batches against the engine, a warm page cache against preads.

Every table runs its contestants in turns, in the same rounds, on the same file, and shows medians
with the smallest and the largest value. Ratios are taken within each round. The data file is
dropped from the page cache first, or brought into it, as the table says.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path

import fio
from common import (
    MIB,
    Report,
    Sample,
    argument_parser,
    data_file,
    drop_from_cache,
    engine_reads,
    in_rounds,
    machine,
    parse,
    ratios,
    spread,
    values,
)
from delivery import bench_delivery, bench_warm, bench_workers

POINTS = ((4 << 10, 64), (64 << 10, 16), (256 << 10, 8), (MIB, 8))  # block bytes, depth
SEED = 1


def rows_against(
    point: str, ours: list[Sample], rivals: dict[str, list[Sample]]
) -> list[list[str]]:
    return [
        [
            point,
            name,
            *(spread(values(runs, "gb_per_s")) for runs in (ours, theirs)),
            spread(ratios(ours, theirs, "gb_per_s"), unit="x"),
            *(spread(values(runs, "cpu_s_per_gb"), ".3f") for runs in (ours, theirs)),
            spread(ratios(ours, theirs, "cpu_s_per_gb"), unit="x"),
        ]
        for name, theirs in rivals.items()
    ]


def bench_against_fio(report: Report, path: Path, args: Namespace) -> None:
    title = "Engine against fio: random direct reads"
    if not report.wants(title):
        return
    if not fio.version():
        print("\nfio is not installed (Debian, Ubuntu: apt install fio): its table is left out")
        return
    rows, all_samples = [], {}
    # A virtual disk is slow for blocks that its host has not read lately: read all of them first.
    engine_reads(path, MIB, 8, seconds=3 * path.stat().st_size / 1e9, sequential=True)
    state = drop_from_cache(path)
    with fio.huge_page_options(args.reserve_hugepages) as (huge, about_pages):
        for block, depth in POINTS:
            name = f"{block >> 10} KiB, depth {depth}"
            rival = partial(fio.random_reads, path, block, depth, args.seconds, SEED)
            contestants = {
                "engine": partial(
                    engine_reads, path, block, depth, seconds=args.seconds, seed=SEED
                ),
                "fio": partial(rival, huge),
                "fio at its best": partial(rival, (*huge, *fio.AT_ITS_BEST)),
            }
            samples = in_rounds(contestants, args.rounds, name)
            all_samples[name] = samples
            rivals = {name: runs for name, runs in samples.items() if name != "engine"}
            rows += rows_against(name, samples["engine"], rivals)
    note = (
        f"{fio.version()} --ioengine=io_uring --direct=1; at its best: "
        f"{' '.join(fio.AT_ITS_BEST)}. {about_pages}. {state}."
    )
    columns = ["reads", "rival", "engine GB/s", "rival GB/s", "throughput ratio",
               "engine CPU s/GB", "rival CPU s/GB", "CPU ratio"]  # fmt: skip
    report.table(title, note, columns, rows, all_samples)


def main() -> None:
    args = parse(argument_parser(__doc__))
    path = data_file(args.data, args.size_gib)
    report = Report(args, machine(args.data))
    bench_against_fio(report, path, args)
    bench_delivery(report, path, args)
    bench_workers(report, path, args)
    bench_warm(report, path, args)
    report.save()


if __name__ == "__main__":
    main()
