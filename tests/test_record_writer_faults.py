"""A RecordWriter whose writes fail, hang or kill it leaves the old data set or the new one."""

from __future__ import annotations

import errno
import os
import signal
import threading

import numpy as np
import pytest
from programs import is_killed_in, started
from record_sets import (
    all_records,
    check_set,
    error_text,
    is_clean_after_a_start,
    values_in,
    write_set,
)
from support import DEADLINE_S, HANGING_CALL, KILLED, holds_soon

from torch_s3io import (
    _C,
    ConfigError,
    FileStore,
    FileSystemConfig,
    RangeEngineConfig,
    RecordWriter,
    WriteError,
    WriteTimeoutError,
)


@pytest.mark.parametrize("error_number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_manifest_that_cannot_be_written_leaves_the_old_data_set(disk, error_number):
    failed = 0
    for number in range(6):
        write_set(disk / "set", 1)
        writer = RecordWriter(
            disk / "set", dtype="u1", shape=1000, shard_bytes=300_000, overwrite=True
        )
        writer.write(np.full((1000, 1000), 2, "u1"))
        plan = _C.FaultPlan(by_call={number: error_number})
        writer._manifest_store = FileStore()._with(faults=plan)
        text = error_text(writer.finish)
        failed += bool(text)
        assert not text or "manifest.json" in text
        check_set(disk / "set", 1 if text and "in place" not in text else 2)
        write_set(disk / "set", 1)  # the folder is free again
        check_set(disk / "set", 1)
    assert failed >= 4


def write_and_finish(writer: RecordWriter, records: np.ndarray) -> None:
    writer.write(records)
    writer.finish()


def test_a_shard_that_cannot_be_written_leaves_the_old_data_set(disk):
    for number in range(2):
        write_set(disk / "set", 1)
        writer = RecordWriter(
            disk / "set", dtype="u1", shape=1000, shard_bytes=300_000, overwrite=True
        )
        full = {0: (errno.ENOSPC, False, False)}
        plan = _C.FaultPlan(by_number=full, by_call={number: errno.EIO})
        writer.write(np.full((600, 1000), 2, "u1"))
        writer._store = FileStore()._with(faults=plan)
        with pytest.raises(WriteError, match="records-"):
            write_and_finish(writer, np.full((600, 1000), 2, "u1"))
        # where removing a file failed, too
        RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()
        check_set(disk / "set", 1)
        with pytest.raises(WriteError, match=r"failed before, with \w+Error: .*records-"):
            writer.finish()


def test_shards_stay_while_their_manifest_may_yet_come_into_its_place(disk):
    write_set(disk / "set", 1)
    writer = RecordWriter(disk / "set", dtype="u1", shape=1000, shard_bytes=300_000, overwrite=True)
    writer.write(np.full((1000, 1000), 2, "u1"))
    plan = _C.FaultPlan(by_call={2: HANGING_CALL})  # of the manifest: the rename
    ranges = RangeEngineConfig(range_timeout=0.2)
    config = FileSystemConfig(direct_io="off", checksum_writes=False, range_engine=ranges)
    writer._manifest_store = FileStore(config)._with(faults=plan)
    with pytest.raises(WriteTimeoutError, match=r"manifest\.json.*is unknown"):
        writer.finish()
    assert values_in(disk / "set") == {1}
    with pytest.raises(ConfigError, match="may yet put its manifest in place"):
        RecordWriter(disk / "set", dtype="u1", overwrite=True)
    plan.release()
    assert holds_soon(lambda: values_in(disk / "set") == {2})
    RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()  # removes the old shards
    check_set(disk / "set", 2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("of_manifest", [False, True])
def test_killed_at_each_block_and_call_a_writer_leaves_the_old_data_set_or_the_new_one(
    disk, of_manifest
):
    def write(plan) -> None:
        writer = RecordWriter(
            disk / "set", dtype="u1", shape=1000, shard_bytes=1_500_000, overwrite=True
        )
        writer.write(np.full((1500, 1000), 2, "u1"))
        name = "_manifest_store" if of_manifest else "_store"
        setattr(writer, name, FileStore(writer._store.config)._with(faults=plan))
        write_and_finish(writer, np.full((1500, 1000), 2, "u1"))

    blocks = [_C.FaultPlan(by_number={number: (KILLED, False, False)}) for number in range(2)]
    calls = [_C.FaultPlan(by_call={number: KILLED}) for number in range(8)]
    killed = 0
    for plan in [*blocks, *calls]:
        write_set(disk / "set", 1)
        is_killed = is_killed_in(lambda plan=plan: write(plan))
        killed += is_killed
        left = values_in(disk / "set")
        assert left == {2} if not is_killed else left == {1} or (left == {2} and of_manifest)
        assert holds_soon(lambda: is_clean_after_a_start(disk / "set"))
        assert values_in(disk / "set") == left
    assert killed >= (6 if of_manifest else 8)


WRITE_SETS_FOR_EVER = """
    import sys
    import numpy as np
    from torch_s3io import RecordWriter

    number = 1
    while True:
        options = {"dtype": "u1", "shape": 1000, "shard_bytes": 300_000, "overwrite": True}
        with RecordWriter(sys.argv[1], **options) as writer:
            for _ in range(5):
                writer.write(np.full((200, 1000), number % 200, "u1"))
        if number == 1:
            print("ready", flush=True)
        number += 1
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_one_whole_data_set(disk):
    random = np.random.default_rng(5)
    for _ in range(5):
        program, output = started(WRITE_SETS_FOR_EVER, disk / "set")
        with output:
            assert output.readline() == "ready\n"
            threading.Event().wait(random.uniform(0, 0.3))
            os.kill(program.pid, signal.SIGKILL)
            program.wait(DEADLINE_S)
        batches = all_records(disk / "set")
        assert sum(len(batch) for batch in batches) == 1000
        assert len(values_in(disk / "set")) == 1
        # The next start removes what is left; the kernel may still be busy with its writes.
        assert holds_soon(lambda: is_clean_after_a_start(disk / "set"))
