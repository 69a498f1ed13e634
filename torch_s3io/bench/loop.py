"""An emulated training loop: takes batches, sleeps as if it computed, and notes when what came."""

from __future__ import annotations

import contextlib
import itertools
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .counters import Usage, peak_memory_bytes, reset_peak_memory

_MOST_PIECES = 50  # of the throughput over time
_BATCHES_A_PIECE = 16
_POINTS_PER_DECADE = 20
_OVERHEAD_STEPS = 20_000

Watch = Callable[[int, float], None]  # bytes of the batch, seconds since the start


@dataclass
class Trace:
    """What one epoch brought, batch by batch."""

    wait_s: array[float] = field(default_factory=lambda: array("d"))
    arrival_s: array[float] = field(default_factory=lambda: array("d"))
    batch_bytes: array[int] = field(default_factory=lambda: array("q"))
    samples: int = 0
    wall_s: float = 0.0


def size_of(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.nbytes
    return sum(tensor.nbytes for tensor in batch)


def run_loop(
    batches: Iterable[Any],
    compute_s: float,
    *,
    watch: Watch = lambda size, seconds: None,
    ranges: bool = False,
) -> Trace:
    """One pass. The time begins before the iterator is made."""
    trace = Trace()
    mark = torch.profiler.record_function if ranges else _no_range
    start = time.perf_counter()
    iterator = iter(batches)
    while True:
        asked = time.perf_counter()
        with mark("torch_s3io.next"):
            batch = next(iterator, None)
        now = time.perf_counter()
        if batch is None:
            break
        size = size_of(batch)
        trace.wait_s.append(now - asked)
        trace.arrival_s.append(now - start)
        trace.batch_bytes.append(size)
        trace.samples += len(batch)
        if compute_s:
            with mark("compute"):
                time.sleep(compute_s)
        del batch
        watch(size, now - start)
    trace.wall_s = now - start
    return trace


def _no_range(name: str) -> contextlib.AbstractContextManager[None]:
    return _NO_RANGE


_NO_RANGE = contextlib.nullcontext()


def overhead_s_per_step() -> float:
    """What the loop itself costs: a source that yields the same tensor over and over."""
    batch = torch.zeros((1, 1), dtype=torch.uint8)
    steps = itertools.repeat(batch, _OVERHEAD_STEPS)
    return run_loop(steps, 0.0).wall_s / _OVERHEAD_STEPS


def accelerator_utilisation(trace: Trace, compute_s: float) -> float | None:
    """AU in percent: 100 * total_compute_time / total_benchmark_running_time.

    As MLPerf Storage defines it (Submission_guidelines.md, "Performance Metrics", of
    https://github.com/mlcommons/storage, v2.0): computing time is emulated by sleeping, and the
    reads of the first step are left out. So the running time is counted from the end of the first
    step, and the computing time is that of all steps but the first.

    None where nothing is computed, or there is no second step.
    """
    steps = len(trace.arrival_s)
    if steps < 2 or compute_s == 0:
        return None
    end_of_first_step = trace.arrival_s[0] + compute_s
    running_s = trace.wall_s - end_of_first_step
    return 100.0 * (steps - 1) * compute_s / running_s


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Bytes that were copied on the way, and bytes that workers handed over without a copy."""

    copied: int
    handed_over: int


def measure_epoch(
    batches: Iterable[Any],
    compute_s: float,
    *,
    copies: Callable[[], Copies],
    workers: int,
    copy_batches: bool,
    **options: Any,
) -> dict[str, Any]:
    """One epoch and all its figures, as the JSON of the result has them."""
    reset_peak_memory()
    copies_before, before = copies(), Usage.now()
    trace = run_loop(batches, compute_s, **options)
    after, copies_after = Usage.now(), copies()
    total = sum(trace.batch_bytes)
    cpu_s = after.cpu_s - before.cpu_s
    copied = copies_after.copied - copies_before.copied
    if copy_batches:
        copied += total
    if workers:  # what is not handed over in place, torch copies into memory of its own
        copied += total - (copies_after.handed_over - copies_before.handed_over)
    waits = np.frombuffer(trace.wait_s) if trace.wait_s else np.zeros(1)
    p50, p99, p999 = (float(value) for value in np.percentile(waits, (50, 99, 99.9)))
    gigabytes = total / 1e9
    return {
        "wall_s": trace.wall_s,
        "bytes": total,
        "samples": trace.samples,
        "steps": len(trace.arrival_s),
        "gb_per_s": gigabytes / trace.wall_s,
        "samples_per_s": trace.samples / trace.wall_s,
        "au_percent": accelerator_utilisation(trace, compute_s),
        "latency_p50_s": p50,
        "latency_p99_s": p99,
        "latency_p999_s": p999,
        "cpu_percent": 100 * cpu_s / trace.wall_s,
        "cpu_s_per_gb": cpu_s / gigabytes if gigabytes else 0.0,
        "minor_faults": after.minor_faults - before.minor_faults,
        "allocator_calls": _difference(before.allocator_calls, after.allocator_calls),
        "allocated_bytes": _difference(before.allocated_bytes, after.allocated_bytes),
        "copied_bytes": copied,
        "peak_rss_bytes": peak_memory_bytes(),
        "timeline": _timeline(trace),
        "latency_curve": _latency_curve(waits),
    }


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _timeline(trace: Trace) -> dict[str, list[float]]:
    """GB/s over the epoch, in pieces that each have as many batches and last from the arrival of
    one to that of another, so that none is counted in a piece in which it did not come."""
    steps = len(trace.arrival_s)
    pieces = max(1, min(_MOST_PIECES, steps // _BATCHES_A_PIECE))
    firsts = np.linspace(0, steps, pieces + 1).astype(int)
    arrivals = np.frombuffer(trace.arrival_s) if steps else np.zeros(0)
    sizes = np.concatenate([[0], np.cumsum(np.array(trace.batch_bytes, dtype=np.int64))])
    edges = np.concatenate([[0.0], arrivals[firsts[1:-1]], [trace.wall_s]])
    speeds = np.diff(sizes[firsts]) / np.maximum(np.diff(edges), 1e-9) / 1e9
    return {"begin_s": edges[:-1].tolist(), "gb_per_s": speeds.tolist()}


def _latency_curve(waits: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, list[float]]:
    """How long the given percentage of batches took at most: as many points from 90 to 99 % as
    from 0 to 90 %, and so on, up to the batch that took longest."""
    decades = np.log10(len(waits))
    rarities = np.append(np.arange(0, decades, 1 / _POINTS_PER_DECADE), decades)
    percentiles = 100 * (1 - 10.0**-rarities)
    return {
        "percentile": percentiles.tolist(),
        "wait_s": np.percentile(waits, percentiles, method="higher").tolist(),
    }
