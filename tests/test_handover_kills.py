"""A worker or the main process is killed: the other one ends or goes on, and nothing is left."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import run_file
from support import holds_soon, worker_count
from test_handover import write

KILLS = """
import ctypes, faulthandler, gc, os, signal, sys, time
from multiprocessing import forkserver, resource_tracker
import numpy as np, torch
import torch_s3io as s3io
from leaks import nothing_leaked
from support import worker_count
path, namespace, who, name, context, persistent = sys.argv[1:]

def slow(batch):
    time.sleep(0.002)
    return batch

def work():
    dataset = s3io.RecordDataset(path, dtype=np.int32, shape=300, batch_size=2, transform=slow)
    workers = worker_count(context) if who == "main" else 2
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context,
        persistent_workers=persistent == "True")
    batches = iter(loader)
    held = [next(batches) for _ in range(5)]
    pids = [worker.pid for worker in batches._workers]
    print(*pids, flush=True)
    if who == "main":
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)
    try:  # torch's handler of SIGCHLD raises as soon as it runs
        os.kill(pids[1], getattr(signal, name))
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
        dataset, batch_size=None, num_workers=worker_count(context),
        multiprocessing_context=context)
    first = [int(batch[0, 0]) // 300 for batch in fresh]
    assert first == list(range(0, 480, 2)), first[:5]
    assert dataset.stats()["held_buffers"] == 5
    del held, batch
    gc.collect()
    assert dataset.stats()["held_buffers"] == 0

if __name__ == "__main__":
    faulthandler.enable()
    if namespace:
        with open(namespace) as file:
            assert ctypes.CDLL(None).setns(file.fileno(), 0) == 0
    torch.set_num_threads(1)
    resource_tracker.ensure_running()
    if context == "forkserver":
        forkserver.ensure_running()
    with nothing_leaked():
        work()
    print("all good", flush=True)
"""


OWN_DEV_SHM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0, os.strerror(ctypes.get_errno())  # CLONE_NEWNS
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, None) == 0
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def dev_shm() -> Iterator[tuple[Path, str]]:
    """A /dev/shm without other programs' files, and the namespace that it is in; the common one
    where only root could make it."""
    if os.geteuid() != 0:
        yield Path("/dev/shm"), ""
        return
    keeper = subprocess.Popen(
        [sys.executable, "-c", OWN_DEV_SHM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert keeper.stdin
    assert keeper.stdout
    assert keeper.stdout.readline() == b"ready\n"
    process = Path("/proc", str(keeper.pid))
    yield process / "root/dev/shm", str(process / "ns/mnt")
    keeper.stdin.close()
    keeper.stdout.close()
    keeper.wait(60)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Forked workers see every case. Others take seconds to start: of them, every pair of all four.
@pytest.mark.parametrize(
    ("context", "who", "name", "persistent"),
    [
        *itertools.product(
            ("fork",), ("worker", "main"), ("SIGKILL", "SIGSEGV", "SIGTERM"), (True, False)
        ),
        ("forkserver", "worker", "SIGKILL", False),
        ("forkserver", "worker", "SIGSEGV", True),
        ("forkserver", "main", "SIGTERM", False),
        ("spawn", "main", "SIGKILL", True),
        ("spawn", "main", "SIGSEGV", False),
        ("spawn", "worker", "SIGTERM", True),
    ],
)
def test_whoever_is_killed_nothing_is_left(disk, dev_shm, context, who, name, persistent):
    path, _ = write(disk)
    script = disk / "kills.py"
    script.write_text(KILLS)
    shared, namespace = dev_shm
    before = set(os.listdir(shared))
    result = run_file(script, path, namespace, who, name, context, persistent)
    pids = [int(pid) for pid in result.stdout.split("\n")[0].split()]
    assert len(pids) == (worker_count(context) if who == "main" else 2), result.stderr
    if who == "worker":
        assert "all good" in result.stdout, result.stdout + result.stderr
        assert result.returncode == 0
    else:
        assert result.returncode == -getattr(signal, name)
    # torch's workers look for their parent every 5 s; a process of multiprocessing removes the
    # semaphores of a main process that was killed.
    assert holds_soon(lambda: not any(alive(pid) for pid in pids))
    assert holds_soon(lambda: set(os.listdir(shared)) <= before), os.listdir(shared)
