"""A worker or the main process is killed: the other one ends or goes on, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_handover import CONTEXTS, write

KILLS = """
import gc, os, signal, sys, time, warnings
import numpy as np, torch
import torch_s3io as s3io
path, who, name, context, persistent = sys.argv[1:]

def slow(batch):
    time.sleep(0.002)
    return batch

if __name__ == "__main__":
    dataset = s3io.RecordDataset(path, dtype=np.int32, shape=300, batch_size=2, transform=slow)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=context,
        persistent_workers=persistent == "True")
    batches = iter(loader)
    held = [next(batches) for _ in range(5)]
    pids = [worker.pid for worker in batches._workers]
    print(*pids, flush=True)
    if who == "main":
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)
    os.kill(pids[1], getattr(signal, name))
    try:
        for batch in batches:
            pass
    except RuntimeError as error:
        assert "worker" in str(error), error
    else:
        raise SystemExit("the loader did not notice")
    for number, batch in enumerate(held):
        assert int(batch[0, 0]) == number * 600
    del batches, loader
    fresh = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=context)
    first = [int(batch[0, 0]) // 300 for batch in fresh]
    assert first == list(range(0, 480, 2)), first[:5]
    assert dataset.stats()["held_buffers"] == 5
    del held, batch
    gc.collect()
    assert dataset.stats()["held_buffers"] == 0
    print("all good", flush=True)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
@pytest.mark.parametrize("who", ["worker", "main"])
def test_whoever_is_killed_nothing_is_left(disk, who, name, persistent, context):
    path, _ = write(disk)
    script = disk / "kills.py"
    script.write_text(KILLS)
    shared = set(os.listdir("/dev/shm"))
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", script, path, who, name, context, str(persistent)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    pids = [int(pid) for pid in result.stdout.split("\n")[0].split()]
    assert len(pids) == 2, result.stderr
    if who == "worker":
        assert "all good" in result.stdout, result.stdout + result.stderr
        assert result.returncode == 0
    else:
        assert result.returncode == -getattr(signal, name)
    deadline = time.monotonic() + 20  # torch's workers look for their parent every 5 s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]
    assert set(os.listdir("/dev/shm")) <= shared
