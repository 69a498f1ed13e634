"""benchmarks/bench_order.py, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import run_file

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "bench_order.py"


@pytest.mark.slow
def test_the_benchmark_of_orders_runs_and_writes_every_sample(tmp_path):
    results = tmp_path / "results.json"
    process = run_file(PROGRAM, "--quick", "--markdown", "--json", results, folder=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    positions, start, blocks = json.loads(results.read_text())["bench_order"]["tables"]
    for table in (positions, start, blocks):
        assert f"### {table['title']}" in process.stdout
        for runs in table["samples"].values():
            assert len(runs) == 2
            assert all(value > 0 for run in runs for value in run.values())
    assert len(positions["samples"]) == 5 * 3
    # Records sorted by class, uniformly shuffled one by one: the variance is that of shuffling.
    assert [run["variance"] for run in blocks["samples"]["1 x 1"]] == pytest.approx([1, 1], abs=0.2)
    assert [run["variance"] for run in blocks["samples"]["64 x 1"]] == pytest.approx(
        [64, 64], rel=0.2
    )
    # In windows of 8 blocks of 32: the mean of 8 blocks, and that of a whole window.
    mixed = [run["variance"] for run in blocks["samples"]["32 x 8"]]
    assert mixed == pytest.approx([32, 32], rel=0.2)
