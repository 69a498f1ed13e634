"""Benchmark programs run; what they measure is not looked at here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from buckets import needs_s3, needs_seaweed
from programs import run_file

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAMS = ("engine", "pool", "dataset", "samples", "shuffle", "writer", "handoff")


@pytest.mark.slow
def test_peers_deliver_every_record_once_and_the_table_names_them(disk):
    result = run_file(
        BENCHMARKS / "bench_peers.py", "--data", disk, "--rounds", 1, "--size-gib", 0.0625,
        "--only", "shuffled, cold", "--peer", "preads", timeout_s=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # A contestant whose epoch does not bring every record once is left out, with the reason.
    assert "not here" not in result.stdout
    for name in ("RecordDataset", "RecordDataset, 2 workers", "Dataset of preads"):
        row = re.search(rf"^{name}  +(.*)$", result.stdout, re.M)
        assert row, result.stdout
        assert len(re.findall(r"\d+\.\d+ \(", row[1])) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["engine", "pool", "dataset", "samples", "shuffle", "writer", "handoff", "tar", "documents"],
)
def test_a_benchmark_runs_and_writes_every_sample(disk, tmp_path, name):
    """With the least data that each takes."""
    results = tmp_path / "results.json"
    size = ("--size-gib", 0.25 if name in ("handoff", "writer") else 0.0625)
    result = run_file(
        BENCHMARKS / f"bench_{name}.py", "--data", disk, "--rounds", 1, *size,
        "--seconds", 0.02, "--json", results, *(["--max-mb", 8] if name == "handoff" else []),
        timeout_s=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    tables = json.loads(results.read_text())[f"bench_{name}"]["tables"]
    assert tables
    for table in tables:
        assert table["title"] in result.stdout
        assert table["samples"]


@pytest.mark.slow
@needs_s3
@needs_seaweed
def test_object_storage_is_read_and_written_on_servers_of_its_own():
    result = run_file(
        BENCHMARKS / "bench_s3.py", "--records", 500, "--checkpoint-gib", 0.0625, "--rounds", 1,
        "--peer", "from_tar", "--peer", "s3io.checkpoint", timeout_s=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # A contestant that reads something else than what was written fails.
    for name, columns in (("from_tar, shuffled", 3), ("s3io.checkpoint", 4)):
        row = re.search(rf"^{re.escape(name)}  +(.*)$", result.stdout, re.M)
        assert row, result.stdout
        assert len(re.findall(r"[\d.,]+ \(", row[1])) == columns


def test_the_results_of_peers_become_a_picture(tmp_path):
    runs = {"RecordDataset": [{"gb_per_s": 1.25}, {"gb_per_s": 1.5}], "x": [{"gb_per_s": 0.5}]}
    table = {"title": "Peers: shuffled, cold page cache", "samples": {"4,096 B x 256": runs}}
    results, picture = tmp_path / "results.json", tmp_path / "peers.svg"
    results.write_text(json.dumps({"bench_peers": {"tables": [table]}}))
    plot = BENCHMARKS / "plot_peers.py", results, picture
    assert run_file(*plot).returncode == 0
    drawn = picture.read_text()
    for text in ("RecordDataset", "1.38", "0.50", "4,096 B, 256 a batch"):
        assert f">{text}<" in drawn, text
    wrong = run_file(*plot, "--table", "warm")
    assert wrong.returncode == 1
    assert "no table with 'warm'" in wrong.stderr
