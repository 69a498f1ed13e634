"""What the benchmarks share: options, data file, page cache, rounds, tables, machine."""

from __future__ import annotations

import argparse
import json
import math
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from storage import (
    GIB,
    MIB,
    bring_into_cache,
    cache_state,
    cached_share,
    data_file,
    drop_from_cache,
    machine,
    progress,
)

from torch_s3io import _C

__all__ = [
    "GB",
    "GIB",
    "MIB",
    "Report",
    "Sample",
    "argument_parser",
    "bring_into_cache",
    "cache_state",
    "cached_share",
    "data_file",
    "drop_from_cache",
    "engine_reads",
    "in_rounds",
    "machine",
    "measured",
    "parse",
    "progress",
    "ratios",
    "spread",
    "values",
]

GB = 1e9

Sample = dict[str, float]  # what one run of one contestant measured, by quantity


def argument_parser(docstring: str | None) -> argparse.ArgumentParser:
    """The options of both programs, so that `make bench ARGS=...` can pass them to both."""
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data/bench"), metavar="DIR",
        help="folder for the data file, on the disk to measure (default: %(default)s)")  # fmt: skip
    add("--size-gib", type=float, default=4, metavar="X",
        help="size of the data file, written if absent (default: %(default)s)")  # fmt: skip
    add("--rounds", type=int, default=7, metavar="N",
        help="how often every contestant runs, in turns (default: %(default)s)")  # fmt: skip
    add("--seconds", type=float, default=2, metavar="S",
        help="length of one run (default: %(default)s)")  # fmt: skip
    add("--quick", action="store_true",
        help="0.5 GiB, 2 rounds, 0.3 s: shows that it works, measures little")  # fmt: skip
    add("--only", metavar="TEXT", default="", help="only the tables whose titles contain TEXT")
    add("--reserve-hugepages", action="store_true",
        help="as root: reserve huge pages for fio's buffers while it runs")  # fmt: skip
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--json", type=Path, metavar="PATH",
        help="write every sample to PATH; other programs' results in it are kept")  # fmt: skip
    return parser


def parse(parser: argparse.ArgumentParser, min_gib: float = 1 / 16) -> argparse.Namespace:
    """The arguments; less than `min_gib` of data is an error."""
    args = parser.parse_args()
    if args.quick:
        args.size_gib, args.rounds, args.seconds = 0.5, 2, 0.3
    if not (args.size_gib >= min_gib and args.rounds >= 1 and args.seconds > 0):
        parser.error(f"--size-gib must be at least {min_gib}, --rounds 1, --seconds above 0")
    return args


def in_rounds(
    contestants: Mapping[str, Callable[[], Sample]], rounds: int, text: str
) -> dict[str, list[Sample]]:
    """Runs every contestant once per round; who begins changes from round to round."""
    names = list(contestants)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in progress(range(rounds), rounds, text):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(contestants[name]())
    return samples


def cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(work: Callable[[], tuple[int, float]]) -> Sample:
    """GB/s, and CPU seconds per GB, of `work`, which returns bytes and seconds.

    The time of this process, and of those that it started and that ended meanwhile.
    """
    cpu_before = cpu_seconds()
    count, elapsed_s = work()
    gigabytes = count / GB
    cpu_s = cpu_seconds() - cpu_before
    return {"gb_per_s": gigabytes / elapsed_s, "cpu_s_per_gb": cpu_s / gigabytes}


def engine_reads(path: Path, block_bytes: int, depth: int, **options: Any) -> Sample:
    """The bare engine: blocks at a constant depth, into registered huge pages."""

    def work() -> tuple[int, float]:
        result = _C.measure_reads(str(path), block_bytes=block_bytes, depth=depth, **options)
        return result["bytes"], result["seconds"]

    return measured(work)


def values(samples: list[Sample], quantity: str) -> list[float]:
    return [sample[quantity] for sample in samples]


def ratios(ours: list[Sample], theirs: list[Sample], quantity: str) -> list[float]:
    """Ours divided by theirs, round by round: what slows both down together cancels out.

    Not a number where a run was too short for theirs to be seen: processor time has a resolution.
    """
    pairs = zip(values(ours, quantity), values(theirs, quantity), strict=True)
    return [mine / other if other else math.nan for mine, other in pairs]


def spread(numbers: list[float], form: str = ".2f", unit: str = "") -> str:
    """Median, smallest and largest."""
    low, high = min(numbers), max(numbers)
    return f"{statistics.median(numbers):{form}}{unit} ({low:{form}}-{high:{form}})"


class Report:
    """Prints tables as they are measured, and keeps every sample for --json."""

    def __init__(self, args: argparse.Namespace, machine: dict[str, str]) -> None:
        self._args = args
        self._tables: list[dict[str, Any]] = []
        self._machine = {
            "command": shlex.join(["python", *sys.argv]),
            "date": time.strftime("%Y-%m-%d"),
            **machine,
        }
        for key, value in self._machine.items():
            print(f"- {key}: `{value}`" if args.markdown else f"{key:>12}: {value}")

    def wants(self, title: str) -> bool:
        return self._args.only.lower() in title.lower()

    def table(
        self, title: str, note: str, columns: list[str], rows: list[list[str]], samples: Any
    ) -> None:
        self._tables.append({"title": title, "note": note, "samples": samples})
        print(f"\n{'### ' if self._args.markdown else ''}{title}\n\n{note}\n")
        cells = [columns, *rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
        if self._args.markdown:
            cells.insert(1, ["-" * width for width in widths])
        for row in cells:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print(f"| {' | '.join(padded)} |" if self._args.markdown else "  ".join(padded))
        sys.stdout.flush()

    def save(self) -> None:
        path = self._args.json
        if path is None:
            return
        results = json.loads(path.read_text()) if path.exists() else {}
        results[Path(sys.argv[0]).stem] = {"machine": self._machine, "tables": self._tables}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
