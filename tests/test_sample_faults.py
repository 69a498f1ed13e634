"""Samples whose files change, whose reads fail, whose processes are killed: right bytes or a typed
error, and nothing is leaked."""

from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import shutil
import signal
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from leaks import nothing_leaked
from programs import run_program
from sample_sets import Lengths
from support import (
    ENGINES,
    ERRNOS,
    QUICK_CONTEXTS,
    RETRIED,
    SHORT,
    end_workers,
    failing,
    make_warm,
)
from test_file_changes import delete, replace_by_one_that_looks_the_same, touch

from torch_s3io import (
    _C,
    BufferPoolConfig,
    DataError,
    Error,
    FileChangedError,
    NotFoundError,
    ReadError,
    SampleDataset,
    SampleWriter,
)

LENGTHS = [number * 37 % 3000 for number in range(120)]


@pytest.fixture
def samples(disk):
    """In several shards that look old."""
    made = Lengths(disk / "set", LENGTHS, shard_bytes=50_000)
    for path in shards(made):
        os.utime(path, (1, 1))
    return made


def shards(samples: Lengths) -> list:
    manifest = json.loads((samples.folder / "manifest.json").read_text())
    return [samples.folder / shard["name"] for shard in manifest["shards"]]


def make(samples: Lengths, plan=None, **options) -> SampleDataset:
    options = {"pool": BufferPoolConfig(capacity=3, buffer_size=64 << 10), **options}
    return SampleDataset(samples.folder, batch_size=10, **options)._with(faults=plan)


def read(dataset: SampleDataset, samples: Lengths) -> Error | None:
    """Reads an epoch; every batch must be right. Returns the error that ended it."""
    numbers = []
    try:
        for batch in dataset:
            numbers += samples.check(batch)
    except Error as error:
        error.__traceback__ = None  # its frames hold the last batch
        return error
    assert sorted(numbers) == list(range(len(samples.data)))
    return None


# Files that change -------------------------------------------------------------------------------


def truncate(path) -> None:
    os.truncate(path, 1234)


def append(path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(16))


def rewrite_in_place(path) -> None:
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(bytes(size))


def replace(path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(path.stat().st_size))
    os.replace(other, path)


CHANGES = [truncate, append, rewrite_in_place, replace, delete, touch]
CHANGES += [replace_by_one_that_looks_the_same]


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_changes_is_an_error_and_never_wrong_bytes(samples, engine, change):
    path = shards(samples)[2]
    dataset = make(samples, engine=engine)
    sent = pickle.dumps(dataset)
    assert read(dataset, samples) is None
    seen = 0
    with pytest.raises((FileChangedError, NotFoundError), match=path.name):  # noqa: PT012
        for batch in dataset:
            seen += len(samples.check(batch))
            if seen == 10:
                change(path)
    assert 10 <= seen < len(LENGTHS)
    del batch
    assert dataset.stats()["pool_in_use"] == 0
    for again in (dataset, make(samples) if change is touch else dataset):
        error = read(again, samples)
        assert (error is None) == (again is not dataset)
    with pytest.raises((FileChangedError, NotFoundError), match=path.name):
        dataset.get_batch(range(len(LENGTHS)))
    # Where the tables are read anew, a wrong one is found as well.
    with pytest.raises((FileChangedError, NotFoundError, DataError), match=path.name):
        next(iter(pickle.loads(sent).with_options(batch_size=len(LENGTHS), pool=None)))


@pytest.mark.parametrize("change", [truncate, append, rewrite_in_place, replace, delete])
def test_a_data_set_of_damaged_shards_is_not_made(samples, change):
    path = shards(samples)[2]
    change(path)
    with pytest.raises((DataError, NotFoundError), match=path.name) as caught:
        make(samples)
    assert "again" in str(caught.value) or change is delete


def test_shards_that_change_places_are_found(samples):
    first, second = shards(samples)[:2]
    sizes = [path.stat().st_size for path in (first, second)]
    os.rename(first, samples.folder / "x")
    os.rename(second, first)
    os.rename(samples.folder / "x", second)
    with pytest.raises(DataError, match=first.name) as caught:
        make(samples)
    assert all(str(size) in str(caught.value) for size in sizes)
    # The same sizes: the checksum of the table tells them apart.
    equal = Lengths(samples.folder.parent / "equal", [500] * 60, shard_bytes=12_000)
    first, second = shards(equal)[:2]
    shutil.copy(second, first)
    with pytest.raises(DataError, match=f"{first.name}.*the checksum of its table is"):
        make(equal)


def test_a_new_data_set_in_the_folder_is_told_from_the_old_one(samples):
    dataset = make(samples)
    sent, state = pickle.dumps(dataset), dataset.state_dict()
    other = Lengths(samples.folder, [length // 2 for length in LENGTHS], overwrite=True)
    with pytest.raises(NotFoundError, match="samples-"):
        next(iter(dataset))
    with pytest.raises(NotFoundError, match="samples-"):
        next(iter(pickle.loads(sent)))
    with pytest.raises(DataError, match=r"what differs is .* names or order of the files"):
        make(other).load_state_dict(state)
    assert read(make(other), other) is None


@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_what_a_worker_finds_is_the_same_error_here(samples, context):
    path = shards(samples)[2]
    loader = torch.utils.data.DataLoader(
        make(samples), batch_size=None, num_workers=1, multiprocessing_context=context
    )
    rewrite_in_place(path)
    batches = iter(loader)
    with pytest.raises((FileChangedError, DataError), match=path.name):
        list(batches)
    end_workers(batches)


# States ------------------------------------------------------------------------------------------


SAID = {"layout": "the layout of the records", "bytes": "what is in the files, by the checksums"}


def test_a_state_goes_with_copies_of_the_data_and_with_no_other_data(samples, disk):
    dataset = make(samples, shuffle=True)
    batches = iter(dataset)
    first = [number for _ in range(3) for number in samples.check(next(batches))]
    state = dataset.state_dict()
    del batches
    shutil.copytree(samples.folder, disk / "copy")
    copy = SampleDataset(disk / "copy", batch_size=10, shuffle=True, ragged="packed")
    copy.load_state_dict(state)
    assert sorted(first + samples.check_all(copy)) == list(range(len(LENGTHS)))

    # Shards of the same names and sizes, of which one byte of one sample is another one.
    names = [path.name for path in shards(samples)]
    others = {"bytes": (LENGTHS, 1), "layout": (LENGTHS, 0)}
    for name, (lengths, value) in others.items():
        fields = {"data": bytes, "number": np.int64 if name == "bytes" else np.uint64}
        with SampleWriter(disk / name, fields=fields, shard_bytes=50_000) as writer:
            for number, length in enumerate(lengths):
                data = bytearray(samples.data[number])
                data[:1] = bytes([value]) if length else b""
                writer.write({"data": bytes(data), "number": number})
        manifest = json.loads((disk / name / "manifest.json").read_text())
        for shard, wanted in zip(manifest["shards"], names, strict=True):
            os.rename(disk / name / shard["name"], disk / name / wanted)
            shard["name"] = wanted
        (disk / name / "manifest.json").write_text(json.dumps(manifest))
        other = SampleDataset(disk / name, batch_size=10, shuffle=True)
        with pytest.raises(DataError, match=f"what differs is {SAID[name]}"):
            other.load_state_dict(state)


# Reads that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [SHORT, failing(errno.EIO), failing(errno.EINTR)])
def test_whichever_read_fails_the_bytes_are_right_or_the_error_is_typed(
    samples, engine, direct, fault
):
    for path in shards(samples):
        make_warm(path)
    whole = make(samples, engine=engine, direct=direct)
    assert read(whole, samples) is None
    total = whole.stats()["requests"]
    assert total >= 12
    for number in range(0, total, 3):
        with nothing_leaked():
            plan = _C.FaultPlan(by_number={number: fault})
            dataset = make(samples, plan, engine=engine, direct=direct)
            error = read(dataset, samples)
            stats = dataset.stats()
            assert (stats["pool_in_use"], stats["quarantined_buffers"]) == (0, 0)
            del dataset
        if fault == SHORT or fault[0] in RETRIED or direct == "auto":
            assert error is None
        else:
            assert type(error) is ReadError
            assert "samples-" in str(error)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    probability=st.sampled_from([0.05, 0.4]),
    faults=st.lists(
        st.sampled_from([SHORT, *(failing(number) for number in ERRNOS[:4])]), min_size=1
    ),
    engine=st.sampled_from(ENGINES),
    direct=st.sampled_from(["auto", "require", "off"]),
    pool=st.sampled_from([None, "auto", BufferPoolConfig(capacity=4, buffer_size=20 << 10)]),
    shuffle=st.booleans(),
)
def test_random_faults_in_random_order_never_give_wrong_bytes(
    samples, seed, probability, faults, engine, direct, pool, shuffle
):
    plan = _C.FaultPlan(seed=seed, probability=probability, random=faults, reorder=True)
    options = {"engine": engine, "direct": direct, "pool": pool, "shuffle": shuffle}
    with nothing_leaked():
        dataset = make(samples, plan, verify=True, **options)
        error = read(dataset, samples)
        stats = dataset.stats()
        assert (stats["pool_in_use"], stats["quarantined_buffers"]) == (0, 0)
        del dataset
    assert error is None or type(error) is not DataError
    if all(fault == SHORT for fault in faults):
        assert error is None


NEVER_COMES_BACK = """
    import gc, sys
    import torch_s3io as s3io

    folder, *engines = sys.argv[1:]
    for engine in engines:
        for buffer_size in (15 << 10, 64 << 10):  # the batch is larger, or it is not
            pool = s3io.BufferPoolConfig(capacity=3, buffer_size=buffer_size)
            dataset = s3io.SampleDataset(folder, batch_size=10, pool=pool, engine=engine,
                                         direct="off", read_timeout_s=0.2)
            dataset = dataset._with(faults=s3io._C.FaultPlan(by_number={0: (0, False, True)}))
            try:
                next(iter(dataset))
            except s3io.ReadTimeoutError as error:
                print("raise read_timeout_s" in str(error))
            gc.collect()
            print(dataset.stats()["quarantined_buffers"] >= 1)
"""


def test_a_read_that_never_comes_back_is_a_timeout_and_its_buffer_is_not_used_again(samples):
    printed = run_program(NEVER_COMES_BACK, samples.folder, *ENGINES)
    assert printed == "True\n" * 4 * len(ENGINES)


# Processes ---------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_ends_the_pass_and_the_next_one_reads_everything(samples):
    dataset = make(samples, pool=BufferPoolConfig(capacity=16, buffer_size=64 << 10))
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    batches = iter(loader)
    held = [next(batches) for _ in range(3)]
    os.kill(batches._workers[1].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="worker"):
        list(batches)
    end_workers(batches)
    assert samples.check_all(held) == list(range(30))
    assert samples.check_all(loader) == list(range(len(LENGTHS)))
    del held, batches
    gc.collect()
    assert dataset.stats()["held_buffers"] == 0


def test_tables_are_let_go_of_with_the_last_of_who_reads(samples):
    dataset = make(samples)
    tables = [weakref.ref(table.starts[0]) for table in dataset._records.tables()]
    batches = iter(dataset)
    batch = next(batches)
    view = dataset.subset(0, 50)
    del dataset, batches
    gc.collect()
    assert all(table() is not None for table in tables)
    del view
    gc.collect()
    assert [table() for table in tables] == [None] * len(tables)
    assert samples.check(batch) == list(range(10))


AT_THE_END = """
    import gc, os, sys, threading
    import torch_s3io as s3io

    folder = sys.argv[1]
    dataset = s3io.SampleDataset(folder, batch_size=4)
    iterator = iter(dataset)
    first = next(iterator)
    for _ in range(3):
        child = os.fork()
        if child == 0:  # what the parent has is not touched, and what is dropped is no trouble
            numbers = [n for batch in dataset for n in batch["number"].tolist()]
            del iterator, dataset
            gc.collect()
            os._exit(numbers != list(range(120)))
        assert os.waitpid(child, 0)[1] == 0

    def run():
        lost = s3io._C.FaultPlan(by_number={0: (0, False, True)})
        own = s3io.SampleDataset(folder, batch_size=4)
        next(iter(own._with(faults=lost)))

    for _ in range(3):
        threading.Thread(target=run, daemon=True).start()
    second = next(iterator)
    print(second["number"].tolist())
"""


def test_forked_children_and_the_end_of_the_program_find_tables_alive(samples):
    assert run_program(AT_THE_END, samples.folder) == "[4, 5, 6, 7]\n"
