"""The end of a program: no crash, whatever is still running."""

import os
import subprocess
import sys

import numpy as np
import pytest
from programs import Running

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
    dataset = s3io.RecordDataset(sys.argv[1], dtype=np.uint8, batch_size=100)
    next(iter(dataset._with(faults=lost)))
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


OPEN_WRITER = """
    import sys
    import numpy as np
    from torch_s3io import RecordWriter

    def begun():
        writer = RecordWriter(sys.argv[1], dtype="u1", shape=1000, shard_bytes=100_000)
        writer.write(np.zeros((250, 1000), "u1"))  # two whole shards and half of one
        return writer
"""
WRITER_OF_A_MODULE = """
    writer = begun()
"""
WRITER_OF_A_FUNCTION_THAT_RAISES = """
    def main():
        writer = begun()
        raise ValueError("the last words")

    main()
"""


@pytest.mark.parametrize(
    ("program", "status", "last_line"),
    [
        (WRITER_OF_A_MODULE, 0, ""),
        (WRITER_OF_A_FUNCTION_THAT_RAISES, 1, "ValueError: the last words"),
    ],
)
def test_a_program_ends_with_a_record_writer_open_and_leaves_nothing(
    disk, program, status, last_line
):
    done = Running(OPEN_WRITER + program, disk / "set").ended()
    assert done.returncode == status, done.stderr
    assert done.stderr.strip().rpartition("\n")[2] == last_line
    assert os.listdir(disk / "set") == []
