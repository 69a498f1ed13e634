"""The end of a program: no crash, whatever is still running."""

import subprocess
import sys

import numpy as np
import pytest

WAITING_IN_TAKE = """
import threading, torch_s3io as s3io
pool = s3io.BufferPool(s3io.BufferPoolConfig(capacity=1, buffer_size=4096))
held = pool.take()
threading.Thread(target=lambda: pool.take(timeout_s=100), daemon=True).start()
"""
WAITING_IN_NEXT = """
import sys, threading, numpy as np, torch_s3io as s3io
lost = s3io._C.FaultPlan(by_number={0: (0, False, True)})
def run():
    next(iter(s3io.RecordDataset(sys.argv[1], dtype=np.uint8, batch_size=100, _faults=lost)))
for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
for batch in s3io.RecordDataset(sys.argv[1], dtype=np.uint8, batch_size=100):
    pass
"""
LIVE_ITERATOR = """
import sys, numpy as np, torch_s3io as s3io
iterator = iter(s3io.RecordDataset(sys.argv[1], dtype=np.uint8, batch_size=100))
batch = next(iterator)
"""


@pytest.mark.parametrize("program", [WAITING_IN_TAKE, WAITING_IN_NEXT, LIVE_ITERATOR])
def test_a_program_ends_well_with_threads_and_iterators_alive(disk, program):
    path = disk / "x.bin"
    path.write_bytes(np.arange(100_000, dtype=np.uint8).tobytes())
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
