"""A SampleWriter whose writes fail, hang or kill it leaves the old data set or the new one."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
from programs import is_killed_in
from record_sets import check_clean, error_text
from sample_sets import FIELDS, sample_of, value_of_samples, write_samples
from support import HANGING_CALL, KILLED, holds_soon

from torch_s3io import (
    _C,
    ConfigError,
    FileStore,
    FileSystemConfig,
    NoSpaceError,
    RangeEngineConfig,
    WriteError,
    WriteTimeoutError,
)
from torch_s3io.writing.sample_writer import SampleWriter


def begun_writer(folder, value: int, **options) -> SampleWriter:
    """250 of 500 samples are written; at least one shard is full."""
    options = {"shard_bytes": 100_000, "overwrite": True, **options}
    writer = SampleWriter(folder, fields=FIELDS, **options)
    writer.write_batch([sample_of(value, number) for number in range(250)])
    return writer


def write_rest(writer: SampleWriter, value: int) -> None:
    for number in range(250, 300):
        writer.write(sample_of(value, number))
    writer.write_batch([sample_of(value, number) for number in range(300, 500)])
    writer.finish()


@pytest.mark.parametrize("error_number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_manifest_that_cannot_be_written_leaves_the_old_data_set(disk, error_number):
    failed = 0
    for number in range(6):
        write_samples(disk / "set", 1)
        writer = begun_writer(disk / "set", 2)
        plan = _C.FaultPlan(by_call={number: error_number})
        writer._manifest_store = FileStore()._with(faults=plan)
        text = error_text(lambda writer=writer: write_rest(writer, 2))
        failed += bool(text)
        assert not text or "manifest.json" in text
        assert value_of_samples(disk / "set") == (1 if text and "in place" not in text else 2)
        SampleWriter(disk / "set", fields=FIELDS, overwrite=True).cancel()  # the folder is free
        check_clean(disk / "set")
    assert failed >= 4


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_shard_that_cannot_be_written_leaves_the_old_data_set(disk, code):
    kind = NoSpaceError if code == errno.ENOSPC else WriteError
    plans = [{"by_number": {number: (code, False, False)}} for number in range(3)]
    plans += [{"by_call": {number: code}} for number in range(5)]
    failed = 0
    for plan in plans:
        write_samples(disk / "set", 1)
        writer = begun_writer(disk / "set", 2)
        writer._store = FileStore(writer._store.config)._with(faults=_C.FaultPlan(**plan))
        text = error_text(lambda writer=writer: write_rest(writer, 2))
        failed += bool(text)
        assert not text or "samples-" in text
        if text:
            with pytest.raises(kind, match=rf"failed before, with {kind.__name__}: .*samples-"):
                writer.write(sample_of(2, 0))
        # where removing a file failed, too
        SampleWriter(disk / "set", fields=FIELDS, overwrite=True).cancel()
        assert value_of_samples(disk / "set") == (1 if text else 2)
        check_clean(disk / "set")
    assert failed >= 4


def test_shards_stay_while_their_manifest_may_yet_come_into_its_place(disk):
    write_samples(disk / "set", 1)
    writer = begun_writer(disk / "set", 2)
    plan = _C.FaultPlan(by_call={2: HANGING_CALL})  # of the manifest: the rename
    ranges = RangeEngineConfig(range_timeout=0.2)
    config = FileSystemConfig(direct_io="off", checksum_writes=False, range_engine=ranges)
    writer._manifest_store = FileStore(config)._with(faults=plan)
    with pytest.raises(WriteTimeoutError, match=r"manifest\.json.*is unknown"):
        write_rest(writer, 2)
    assert value_of_samples(disk / "set") == 1
    with pytest.raises(ConfigError, match="may yet put its manifest in place"):
        begun_writer(disk / "set", 3)
    plan.release()
    assert holds_soon(lambda: value_of_samples(disk / "set") == 2)
    SampleWriter(disk / "set", fields=FIELDS, overwrite=True).cancel()  # removes the old shards
    check_clean(disk / "set")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("of_manifest", [False, True])
def test_killed_at_each_block_and_call_a_writer_leaves_the_old_data_set_or_the_new_one(
    disk, of_manifest
):
    def write(plan) -> None:
        writer = begun_writer(disk / "set", 2)
        name = "_manifest_store" if of_manifest else "_store"
        setattr(writer, name, FileStore(writer._store.config)._with(faults=plan))
        write_rest(writer, 2)

    blocks = [_C.FaultPlan(by_number={number: (KILLED, False, False)}) for number in range(3)]
    calls = [_C.FaultPlan(by_call={number: KILLED}) for number in range(8)]
    killed = 0
    for plan in [*blocks, *calls]:
        write_samples(disk / "set", 1)
        is_killed = is_killed_in(lambda plan=plan: write(plan))
        killed += is_killed
        left = value_of_samples(disk / "set")
        assert left == 2 if not is_killed else left == 1 or (left == 2 and of_manifest)

        def is_clean() -> bool:
            SampleWriter(disk / "set", fields=FIELDS, overwrite=True).cancel()
            return sum(name.startswith("samples-") for name in os.listdir(disk / "set")) == len(
                os.listdir(disk / "set")
            ) - 1 and not any(name.startswith(".s3io") for name in os.listdir(disk / "set"))

        assert holds_soon(is_clean)
        check_clean(disk / "set")
        assert value_of_samples(disk / "set") == left
    assert killed >= (6 if of_manifest else 8)


def test_an_exception_and_a_cancel_leave_the_old_data_set(disk):
    write_samples(disk / "set", 1)
    with contextlib.suppress(KeyError), begun_writer(disk / "set", 2) as writer:
        raise KeyError
    assert value_of_samples(disk / "set") == 1
    check_clean(disk / "set")
    writer = begun_writer(disk / "set", 3)
    writer.cancel()
    check_clean(disk / "set")
    with pytest.raises(ConfigError, match="finished or cancelled"):
        writer.write(sample_of(1, 1))
    begun_writer(disk / "set", 3)  # dropped without finishing
    assert value_of_samples(disk / "set") == 1
    check_clean(disk / "set")


def test_a_shard_that_is_not_of_its_size_gets_no_manifest(disk):
    write_samples(disk / "set", 1)
    writer = begun_writer(disk / "set", 2)
    finish = writer._shard.finish
    writer._shard.finish = lambda: finish()._replace(size_bytes=5)
    with pytest.raises(WriteError, match="but its samples and their table take"):
        write_rest(writer, 2)
    assert value_of_samples(disk / "set") == 1
    check_clean(disk / "set")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_writer_alone(disk):
    writer = begun_writer(disk / "set", 2)
    child = os.fork()
    if child == 0:
        try:
            writer.write(sample_of(3, 1))
        except ConfigError:
            writer.cancel()
            del writer
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    write_rest(writer, 2)
    assert value_of_samples(disk / "set") == 2
    check_clean(disk / "set")


def test_the_bytes_of_samples_are_copied_once(disk):
    """Samples larger than a block, in shards of one each."""
    data = bytes(range(256)) * (5 << 12)  # 5 MiB
    with SampleWriter(disk / "set", fields={"data": bytes}, shard_bytes=1) as writer:
        for _ in range(6):
            writer.write({"data": data})
        copied = writer._store.stats()["write_copied_bytes"]
    assert copied <= 6 * (len(data) + 4096 + 24)  # the table lies behind it
    for path in (disk / "set").glob("*.bin"):
        assert path.read_bytes()[: len(data)] == data
