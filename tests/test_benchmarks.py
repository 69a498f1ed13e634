"""Benchmark programs run; what they measure is not looked at here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import IMPORT_PATH

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_peers_deliver_every_record_once_and_the_table_names_them(disk):
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench_peers.py"), "--data", str(disk), "--rounds", "1",
         "--size-gib", "0.0625", "--only", "shuffled, cold", "--peer", "preads"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # A contestant whose epoch does not bring every record once is left out, with the reason.
    assert "not here" not in result.stdout
    for name in ("RecordDataset", "RecordDataset, 2 workers", "Dataset of preads"):
        row = re.search(rf"^{name}  +(.*)$", result.stdout, re.M)
        assert row, result.stdout
        assert len(re.findall(r"\d+\.\d+ \(", row[1])) == 3
