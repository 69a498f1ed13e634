"""Warnings name the line of the program that led to them, and come once for it."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from programs import run_file
from support import CONTEXTS, QUICK_CONTEXTS

import torch_s3io as s3io
from torch_s3io.warning import warn

HERE = __file__

# What a machine without the feature says; a process that is spawned begins as this one does.
SOURCE = """
import sys
import torch_s3io as s3io
from torch_s3io import _C

if sys.argv[2] == "engine":
    _C.uring_unavailable_reason = lambda: "io_uring is not there"
else:
    _C.direct_alignment = lambda path, mode: 0

def main():
    dataset = s3io.RecordDataset(sys.argv[1], dtype="u1", shape=1000, batch_size=4)
    train, test = dataset.split([0.9, 0.1])
    loader = s3io.DataLoader(train, num_workers=2, multiprocessing_context=sys.argv[3])
    for _ in range(2):
        assert sum(len(batch) for batch in loader) == 180

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def path(disk):
    np.zeros((200, 1000), "u1").tofile(disk / "x.bin")
    return disk / "x.bin"


@pytest.mark.parametrize(
    ("context", "what", "text"),
    [
        *((context, "engine", "reading with threads") for context in CONTEXTS),
        *((context, "direct", "refuses O_DIRECT") for context in QUICK_CONTEXTS),
    ],
)
def test_what_a_machine_lacks_is_said_once_and_not_by_every_worker(path, disk, what, text, context):
    program = disk / "program.py"
    program.write_text(SOURCE)
    process = run_file(program, path, what, context, spawns=True)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count(text) == 1, process.stderr
    assert re.search(rf"'?{what}_?\w*'?=", process.stderr), "no option in it"
    if what == "direct" or context == "fork":  # other workers were started by nobody's line
        line = re.search(r"(\S+):(\d+): RuntimeWarning", process.stderr)
        assert line[1] == str(program)
        source = SOURCE.splitlines()[int(line[2]) - 1]
        assert ("RecordDataset" if what == "direct" else "in loader") in source


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["plain", "zip"])
def test_batches_that_are_kept_are_warned_of_once_and_at_the_line_that_keeps_them(
    path, workers, kind
):
    pool = s3io.BufferPoolConfig(capacity=4, buffer_size=32 * 1024)
    options = {"dtype": "u1", "shape": 1000, "batch_size": 10, "pool": pool}
    dataset = s3io.RecordDataset(path, **options)
    if kind == "zip":
        dataset = s3io.Zip(a=dataset, b=s3io.RecordDataset(path, **options))
    loader = s3io.DataLoader(dataset, num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        kept = list(loader)
    line = test_batches_that_are_kept_are_warned_of_once_and_at_the_line_that_keeps_them
    assert len(kept) == 20
    assert [warning.filename for warning in caught] == [HERE]
    code = line.__code__
    assert code.co_firstlineno < caught[0].lineno < code.co_firstlineno + 40
    assert "pool=BufferPoolConfig" in str(caught[0].message)


def test_the_line_is_the_programs_also_behind_torch_and_a_thread():
    def collate(batch):
        warn("from below")
        return batch

    loader = torch.utils.data.DataLoader([1, 2], collate_fn=collate)
    with pytest.warns(RuntimeWarning, match="from below") as caught:
        list(loader)
    assert {warning.filename for warning in caught} == {HERE}
