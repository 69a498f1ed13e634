"""What the buffer pool is for: the same work without a pool and with it, in turns.

Without: every read goes into memory that was allocated for it, and every batch is copied once more
into fresh memory, as a loader without a pool does. With: as the configuration says. Both read the
same files by the same engine. fio reads them, too, at the same size and depth of requests.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import _C
from ..config import MIB
from ..wording import count_of
from . import data, fio, runner
from .config import BenchConfig
from .result import as_lines, markdown_table, spread

Sample = dict[str, float]

_EPOCHS = 2  # the first one makes buffers and starts threads; the second one counts
_CHUNK_BYTES = 1 * MIB  # of RecordDataset
_TAKE_GIVE_BYTES = 8 * MIB
_TAKE_GIVE_S = 0.2

EXPECTED = {
    "gb_per_s": "+15 to +20 %",
    "cpu_s_per_gb": "-10 to -15 %",
    "minor_faults_per_gb": "-30 to -50 %",
    "allocator_calls_per_gb": "-90 %",
    "allocated_mb_per_gb": "",
}
_TITLES = {
    "gb_per_s": ("GB/s", ".2f"),
    "cpu_s_per_gb": ("CPU s/GB", ".3f"),
    "minor_faults_per_gb": ("minor faults/GB", ",.0f"),
    "allocator_calls_per_gb": ("allocator calls/GB", ",.0f"),
    "allocated_mb_per_gb": ("allocated MB/GB", ",.2f"),
}


def variants(config: BenchConfig) -> dict[str, BenchConfig]:
    """The two contestants: no emulated computing, two epochs."""
    replace = dataclasses.replace
    common = replace(config, epochs=_EPOCHS, compute_s_per_step=0.0, profile=False)
    without = replace(
        common,
        storage=replace(common.storage, pool=None),
        loader=replace(common.loader, copy_batches=True),
    )
    return {"without a pool": without, "with a pool": common}


def measure(config: BenchConfig, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """All samples: of both variants, and of fio where it is installed."""
    contestants: dict[str, Callable[[], Sample]] = {
        name: partial(_last_epoch, variant) for name, variant in variants(config).items()
    }
    note = ""
    if not fio.version():
        note = "fio is not installed (Debian, Ubuntu: apt install fio): no gap to it"
    elif fio_block(config) % 512:
        note = f"fio cannot read blocks of {fio_block(config):,} bytes directly: no gap to it"
    elif config.page_cache != "cold":
        note = "fio reads past the page cache, so there is no gap to it unless page_cache is cold"
    else:
        contestants["fio"] = partial(_fio, config)
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            report(f"{config.name}: round {number + 1} of {rounds}, {name}")
            samples[name].append(contestants[name]())
    report("")
    return {
        "samples": samples,
        "notes": [note] if note else [],
        "machine": runner.machine(config.data),
    }


def _last_epoch(config: BenchConfig) -> Sample:
    epoch = runner.run(config, show=False)["epochs"][-1]
    gigabytes = epoch["bytes"] / 1e9
    sample = {
        "gb_per_s": epoch["gb_per_s"],
        "cpu_s_per_gb": epoch["cpu_s_per_gb"],
        "minor_faults_per_gb": epoch["minor_faults"] / gigabytes,
    }
    if epoch["allocator_calls"] is not None:
        sample["allocator_calls_per_gb"] = epoch["allocator_calls"] / gigabytes
        sample["allocated_mb_per_gb"] = epoch["allocated_bytes"] / 1e6 / gigabytes
    return sample


def fio_block(config: BenchConfig) -> int:
    """Bytes of the requests that this configuration makes."""
    if config.loader.reader == "files":
        ranges = config.storage.range_engine
        return config.data.record_bytes if ranges is None else ranges.chunk_size
    return config.data.record_bytes if config.loader.shuffle else _CHUNK_BYTES


def fio_depth(config: BenchConfig) -> int:
    """Requests that it has in flight."""
    if config.loader.reader == "files":
        ranges = config.storage.range_engine
        concurrent = 1 if ranges is None else ranges.max_concurrent_ranges
        return concurrent * config.loader.concurrent_files
    return config.storage.depth


def _fio(config: BenchConfig) -> Sample:
    data.drop_from_cache(data.paths_of(config.data))
    return fio.read_once(
        config.data, fio_block(config), fio_depth(config), shuffled=bool(config.loader.shuffle)
    )


def take_give(rounds: int) -> dict[str, list[float]]:
    """Nanoseconds to take, touch and give a buffer of 8 MiB, and to allocate, touch and free it."""
    pool = _C.BufferPool(capacity=2, buffer_size=_TAKE_GIVE_BYTES, alignment=4096)
    works = {
        "take and give": partial(_C.benchmark_take_give, pool),
        "allocate and free": partial(_C.benchmark_allocate_free, _TAKE_GIVE_BYTES, alignment=4096),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(_nanoseconds(work))
    return times


def _nanoseconds(work: Callable[..., None]) -> float:
    count = 16
    while True:
        start = time.perf_counter_ns()
        work(rounds=count)
        elapsed = time.perf_counter_ns() - start
        if elapsed >= _TAKE_GIVE_S * 1e9 / 2:
            return elapsed / count
        count *= 2


def change_percent(before: list[float], after: list[float]) -> list[float]:
    """Round by round: what slows both down together cancels out."""
    return [100 * (new - old) / old if old else 0.0 for old, new in zip(before, after, strict=True)]


def as_markdown(measured: dict[str, Any], config: BenchConfig, command: str) -> str:
    """The five figures, and how many bytes were allocated."""
    before, after = (measured["samples"][name] for name in ("without a pool", "with a pool"))
    rows = []
    for key, (title, form) in _TITLES.items():
        if key not in before[0]:
            rows.append([title, "", "", "not counted: there is no C compiler", EXPECTED[key]])
            continue
        old, new = ([sample[key] for sample in samples] for samples in (before, after))
        show = partial(_show, form)
        change = spread(change_percent(old, new), partial(_show, "+.0f"), " %")
        rows.append([title, spread(old, show), spread(new, show), change, EXPECTED[key]])
    if "fio" in measured["samples"]:
        rows.append(_fio_row(measured["samples"]))
    lines = [
        f"### Without a pool and with it: {config.name}",
        "",
        f"`{command}`",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in measured["machine"].items()),
        *(f"- {note}" for note in measured["notes"]),
        "",
        f"Medians of {count_of(len(before), 'round')} in turns (smallest-largest); the "
        "second epoch of a fresh process each. Without a pool: an allocation for every read, and a "
        "copy of every batch. Changes and the gap are those of each round; a gap below 0 %: faster "
        "than fio.",
        "",
    ]
    table = markdown_table(["", "without a pool", "with a pool", "change", "expected"], rows)
    return as_lines(lines) + table + "\n"


def take_give_markdown(times: dict[str, list[float]]) -> str:
    """Take and give against allocate and free."""
    ours, theirs = times["take and give"], times["allocate and free"]
    show = partial(_show, ",.1f")
    faster = spread([old / new for old, new in zip(theirs, ours, strict=True)], show, "x")
    micro = [spread([value / 1e3 for value in values], show) for values in (theirs, ours)]
    columns = ["", "allocate and free", "take and give", "faster by", "expected"]
    row = ["8 MiB buffer, a byte of each page written, us", *micro, faster, "2 to 3x"]
    return f"### Buffers alone\n\n{markdown_table(columns, [row])}\n"


def _show(form: str, value: float) -> str:
    return format(value, form)


def _fio_row(samples: dict[str, list[Sample]]) -> list[str]:
    ours, theirs = (
        [sample["gb_per_s"] for sample in samples[name]] for name in ("with a pool", "fio")
    )
    gap = [-change for change in change_percent(theirs, ours)]
    show = partial(_show, ".2f")
    median = statistics.median(gap)
    text = f"{median:+.0f} % ({min(gap):+.0f} to {max(gap):+.0f})"
    return ["gap to fio, GB/s", f"fio: {spread(theirs, show)}", spread(ours, show), text, "< 10 %"]
