"""The emulated loop: its figures are what its batches, a clock and the kernel say."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import bytes_until

from torch_s3io.bench import loop
from torch_s3io.bench.loop import Copies, Trace, accelerator_utilisation, measure_epoch, run_loop


def trace(arrivals: list[float], wall_s: float) -> Trace:
    return Trace(arrival_s=array("d", arrivals), wall_s=wall_s)


def test_accelerator_utilisation_leaves_the_reads_of_the_first_step_out():
    # The first batch comes after 10 s; each of 4 steps computes 1 s; the third waits 2 s for data.
    utilisation = accelerator_utilisation(trace([10, 11, 14, 15], wall_s=16), 1.0)
    assert utilisation == pytest.approx(100 * 3 / 5)
    assert accelerator_utilisation(trace([10, 11, 12], wall_s=13), 1.0) == pytest.approx(100)
    assert accelerator_utilisation(trace([10], wall_s=11), 1.0) is None
    assert accelerator_utilisation(trace([10, 11], wall_s=12), 0.0) is None


def test_the_loop_counts_what_it_gets_and_sleeps_for_every_batch():
    empty = run_loop([], 0.0)
    assert (empty.samples, len(empty.arrival_s)) == (0, 0)
    result = run_loop(
        [torch.zeros(4, 8, dtype=torch.uint8), [torch.zeros(3), torch.zeros(2)]], 0.01
    )
    assert result.samples == 4 + 2
    assert list(result.batch_bytes) == [32, 20]
    assert result.wall_s >= 0.02
    assert result.arrival_s[1] - result.arrival_s[0] >= 0.01


def test_the_loop_times_what_it_waits_for_and_not_what_is_computed(monkeypatch):
    """By a clock that only the source and the computing move."""
    clock = SimpleNamespace(now_s=100.0)

    def sleep(seconds: float) -> None:
        clock.now_s += seconds

    def batches():
        for wait_s in (4.0, 1.0, 2.5):
            sleep(wait_s)
            yield torch.zeros(2, 5, dtype=torch.uint8)
        sleep(0.5)  # until the end is found

    monkeypatch.setattr(
        loop, "time", SimpleNamespace(perf_counter=lambda: clock.now_s, sleep=sleep)
    )
    seen = []
    result = run_loop(batches(), 8.0, watch=lambda *figures: seen.append(figures))
    assert list(result.wait_s) == [4.0, 1.0, 2.5]
    assert list(result.arrival_s) == [4.0, 13.0, 23.5]
    assert result.wall_s == 3 * 8.0 + 4.0 + 1.0 + 2.5 + 0.5
    assert seen == [(10, 4.0), (10, 13.0), (10, 23.5)]


def figures_of(batches, **options) -> dict:
    options = {
        "copies": lambda: Copies(copied=0, handed_over=0), "workers": 0, "copy_batches": False,
        **options,
    }  # fmt: skip
    return measure_epoch(batches, 0.0, **options)


def test_the_figures_of_an_epoch_are_those_of_its_batches(monkeypatch):
    """Waits of 0 to 1000 ms in any order: of all, 50, 99 and 99.9 % are below 500, 990, 999 ms."""
    random = np.random.default_rng(0)
    arrivals = np.sort(random.random(1001) * 8).tolist()
    sizes = random.integers(1, 1 << 20, 1001).tolist()
    known = Trace(
        wait_s=array("d", random.permutation(1001) / 1000), arrival_s=array("d", arrivals),
        batch_bytes=array("q", sizes), samples=4004, wall_s=8.0,
    )  # fmt: skip
    monkeypatch.setattr(loop, "run_loop", lambda batches, compute_s: known)
    epoch = figures_of([])
    assert epoch["latency_p50_s"] == pytest.approx(0.500)
    assert epoch["latency_p99_s"] == pytest.approx(0.990)
    assert epoch["latency_p999_s"] == pytest.approx(0.999)
    assert (epoch["bytes"], epoch["samples"], epoch["steps"]) == (sum(sizes), 4004, 1001)
    assert epoch["gb_per_s"] == pytest.approx(sum(sizes) / 8e9)
    assert epoch["samples_per_s"] == pytest.approx(500.5)

    begins_s = epoch["timeline"]["begin_s"]
    assert len(begins_s) == 50
    assert [sum(begin <= at < end for at in arrivals) for begin, end in
            itertools.pairwise([*begins_s, 8.0])] == pytest.approx([20] * 50, abs=1)  # fmt: skip
    for end_s in (*begins_s, 8.0):
        arrived = sum(size for size, at in zip(sizes, arrivals, strict=True) if at < end_s)
        assert bytes_until(epoch, end_s) == pytest.approx(arrived)

    percentiles, waits_s = (epoch["latency_curve"][key] for key in ("percentile", "wait_s"))
    assert percentiles[0] == 0
    assert percentiles == sorted(percentiles)
    for wanted in (50, 90, 99, 99.9):
        assert min(abs(percentile - wanted) for percentile in percentiles) < (100 - wanted) / 15
    for percentile, wait_s in zip(percentiles, waits_s, strict=True):
        share = sum(wait <= wait_s for wait in known.wait_s) / 1001
        assert 100 * share == pytest.approx(percentile, abs=0.2)
    assert waits_s[-1] == max(known.wait_s)


@pytest.mark.parametrize(
    ("steps", "pieces"), [(0, 1), (1, 1), (31, 1), (32, 2), (87, 5), (9999, 50)]
)
def test_a_piece_of_the_throughput_has_some_batches(steps, pieces, monkeypatch):
    """Of batches that come regularly every piece has the same throughput."""
    arrivals = [0.25 * (step + 1) for step in range(steps)]
    known = Trace(
        wait_s=array("d", [0.2] * steps), arrival_s=array("d", arrivals),
        batch_bytes=array("q", [10**9] * steps), samples=steps, wall_s=0.25 * steps + 0.25,
    )  # fmt: skip
    monkeypatch.setattr(loop, "run_loop", lambda batches, compute_s: known)
    epoch = figures_of([])
    speeds = epoch["timeline"]["gb_per_s"]
    assert len(speeds) == len(epoch["timeline"]["begin_s"]) == pieces
    assert speeds[1:-1] == pytest.approx([4.0] * len(speeds[1:-1]))
    assert bytes_until(epoch, known.wall_s) == pytest.approx(steps * 10**9)


BURN = """
import resource, sys
used_s = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
while used_s() < 0.1:
    pass
print(used_s(), flush=True)
sys.stdin.read()
"""


def processor_time_s() -> float:
    """Of this process and those it has waited for."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


@pytest.mark.parametrize("where", ["here", "in a worker that lives", "in a worker that ended"])
def test_processor_time_is_what_the_epoch_used_here_and_in_its_workers(where):
    used_s = []
    process = None

    def batches():
        nonlocal process
        begin_s = processor_time_s()
        if where == "here":
            while processor_time_s() < begin_s + 0.1:
                pass
            used_s.append(processor_time_s() - begin_s)
        else:
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", BURN],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            used_s.append(float(process.stdout.readline()))
            if where == "in a worker that ended":
                process.communicate()
        yield torch.zeros(1000, 100, dtype=torch.uint8)

    before_s = processor_time_s()
    epoch = figures_of(batches())
    if process is not None:
        process.communicate()
    at_most_s = processor_time_s() - before_s
    cpu_s = epoch["cpu_percent"] / 100 * epoch["wall_s"]
    ticks_s = 2 / os.sysconf("SC_CLK_TCK")  # what /proc leaves out of a process that lives
    assert used_s[0] - ticks_s <= cpu_s <= at_most_s + 1e-6
    assert epoch["cpu_s_per_gb"] == pytest.approx(cpu_s / 1e-4)
