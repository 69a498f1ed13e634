"""A buffer is the main process's until its last view dies, however batches and loaders end."""

from __future__ import annotations

import gc
import multiprocessing
import operator
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from leaks import nothing_leaked
from programs import run_program
from support import holds_soon, open_files, pool_mappings, threads
from test_handover import BATCH, COLUMNS, ROWS, check, handed_over, make, small_pool, write
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import torch_s3io as s3io


@pytest.mark.parametrize("capacity", [3, 4, 8])
def test_a_program_that_keeps_every_batch_still_runs(disk, capacity):
    path, array = write(disk)
    dataset = make(path, pool=small_pool(capacity))
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        held = list(loader)
    for batch in held:
        check(batch, array)
    stats = dataset.stats()
    # The worker leaves itself one buffer to read into; the main process leaves it two, or one of
    # three. So of three either may be the first to copy, and warns, each on its own standard error.
    assert stats["held_out_tensors"] + stats["spilled_batches"] > 0
    warned = [one for one in caught if "BufferPoolConfig.capacity" in str(one.message)]
    assert len(warned) == (1 if stats["held_out_tensors"] else 0)
    if capacity > 3:
        assert stats["held_out_tensors"] > 0
    assert stats["held_buffers"] <= 2 * (capacity - 1)
    del held, batch
    gc.collect()
    assert dataset.stats()["held_buffers"] == 0


def test_breaking_off_and_starting_again_loses_nothing(disk):
    path, array = write(disk)
    for persistent in (True, False):
        dataset = make(path, pool=small_pool(8))
        loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=persistent)
        for wanted in (1, 7, 30):
            for number, batch in enumerate(loader):
                check(batch, array)
                if number == wanted:
                    break
        assert [int(index[0]) for _, index in loader] == list(range(0, ROWS, BATCH))
        del loader, batch
        gc.collect()


def interrupts_the_main_process(rows: torch.Tensor) -> torch.Tensor:
    if int(rows[0, 0]) == 20 * BATCH * COLUMNS and not _interrupted.is_set():
        _interrupted.set()
        os.kill(os.getppid(), signal.SIGINT)
    return rows


def for_each(batches: Any, take: Callable[[Any], None]) -> None:
    for batch in batches:
        take(batch)


def run_many_epochs(loader: Any) -> None:
    for _ in range(1000):
        for _ in loader:
            pass


_interrupted = multiprocessing.get_context("fork").Event()


@pytest.mark.parametrize("persistent", [True, False])
def test_after_an_interrupt_in_mid_epoch_the_next_epoch_is_whole(disk, persistent):
    path, array = write(disk)
    dataset = make(path, pool=small_pool(8), transform=interrupts_the_main_process)
    loader = s3io.DataLoader(dataset, num_workers=2, persistent_workers=persistent)
    _interrupted.clear()
    with pytest.raises(KeyboardInterrupt):
        run_many_epochs(loader)
    numbers: list[int] = []
    for batch in loader:
        check(batch, array)
        numbers += batch[1].tolist()
    assert numbers == list(range(ROWS))
    del batch, loader
    gc.collect()
    assert dataset.stats()["held_buffers"] == 0


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("received", [0, 3])
def test_an_interrupt_while_waiting_ends_the_pass_and_its_state_is_exact(
    disk, monkeypatch, received, persistent
):
    path, _ = write(disk)
    dataset = make(path)
    loader = s3io.DataLoader(dataset, num_workers=2, persistent_workers=persistent)
    assert len(list(loader)) == ROWS // BATCH

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    batches = iter(loader)
    numbers = [n for _ in range(received) for n in next(batches)[1].tolist()]
    with monkeypatch.context() as patch:
        # Where torch waits for a worker: for a batch, or for its word that it begins once more.
        patch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", interrupted)
        with pytest.raises(KeyboardInterrupt):
            for_each(batches, lambda batch: numbers.extend(batch[1].tolist()))  # some are here
    for _ in range(2):
        with pytest.raises(s3io.DataError, match="an interrupt ended this pass"):
            next(batches)
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, len(numbers))
    loader.load_state_dict(state)
    assert numbers + [n for _, index in loader for n in index.tolist()] == list(range(ROWS))


@pytest.mark.slow
@pytest.mark.parametrize("impatient", [False, True])
def test_interrupts_at_any_moment_leave_the_next_epoch_whole(impatient):
    """Impatient: more interrupts come while the first one ends the workers."""
    source = f"""
    import random, signal, tempfile
    import torch_s3io as s3io

    armed = False

    def interrupt(*_):
        global armed
        if armed:
            armed = {impatient}
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(256 * 512))
        file.flush()
        dataset = s3io.RecordDataset(file.name, dtype="u1", shape=512, batch_size=4,
                                     return_index=True)
        loader = s3io.DataLoader(dataset, num_workers=2)
        random.seed(1)
        interrupts = 0
        while interrupts < 40:
            list(loader)  # so that the workers are there: a fork is not to be interrupted
            try:
                armed = True
                # Again and again: where an interrupt comes in a destructor, Python drops it.
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.03), 0.02)
                while armed:
                    for _ in loader:
                        pass
            except KeyboardInterrupt:
                armed = False
                interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert [n for _, index in loader for n in index.tolist()] == list(range(256))
    print("whole")
    """
    assert run_program(source).endswith("whole\n")


def test_two_iterators_and_two_data_sets_at_a_time(disk):
    path, array = write(disk)
    dataset, other = make(path), make(path)
    loader = s3io.DataLoader(dataset, num_workers=1)
    first, second, third = iter(loader), iter(loader), iter(s3io.DataLoader(other, num_workers=1))
    for _ in range(ROWS // BATCH):
        batches = [next(first), next(second), next(third)]
        assert len({int(index[0]) for _, index in batches}) == 1
        for batch in batches:
            check(batch, array)
    del batches, batch
    assert next(first, None) is None
    assert next(second, None) is None
    assert next(third, None) is None
    assert handed_over(dataset) == 4 * ROWS // BATCH


def test_an_inner_loop_that_breaks_off_leaves_the_outer_ones_alone(disk):
    path, array = write(disk, 64)
    loader = s3io.DataLoader(make(path), num_workers=1)
    outer = []
    for batch in loader:
        for _ in range(2):
            for inner in loader:
                assert int(inner[1][0]) == 0
                break
        check(batch, array)
        outer.append(int(batch[1][0]))
    assert outer == list(range(0, 64, BATCH))


def test_users_may_write_share_pickle_and_clone(disk):
    path, array = write(disk, 64)
    dataset = make(path)
    kept = []
    for rows, index in DataLoader(dataset, batch_size=None, num_workers=1):
        rows += 1
        kept.append((pickle.loads(pickle.dumps(rows)), rows.clone(), index.tolist()))
        rows.share_memory_()
        assert rows.is_shared()
        np.testing.assert_array_equal(rows.numpy(), array[index.numpy()] + 1)
    for pickled, cloned, numbers in kept:
        np.testing.assert_array_equal(pickled, array[numbers] + 1)
        np.testing.assert_array_equal(cloned, array[numbers] + 1)


def test_a_fork_while_batches_are_held_changes_nothing(disk):
    path, array = write(disk)
    dataset = make(path, pool=small_pool(8))
    batches = iter(DataLoader(dataset, batch_size=None, num_workers=1))
    held = [next(batches)]
    child = os.fork()
    if child == 0:
        held.clear()
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    rest = [int(index[0]) for _, index in batches]
    check(held[0], array)
    assert rest == list(range(BATCH, ROWS, BATCH))
    assert dataset.stats()["held_buffers"] == 1


def test_a_fork_that_starts_no_worker_costs_idle_data_sets_nothing(disk):
    path, _ = write(disk)
    datasets = [make(path) for _ in range(5)]
    before = open_files()
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert open_files() == before
    del datasets


def test_many_epochs_leave_the_main_process_no_larger(disk):
    path, array = write(disk)
    dataset = make(path, pool=small_pool(8))
    loader = DataLoader(dataset, batch_size=None, num_workers=2)

    def resources() -> list[int]:
        return [len(open_files()), len(threads()), len(pool_mappings())]

    def shared_memory_kib() -> int:
        text = Path("/proc/self/status").read_text()
        return int(text.partition("RssShmem:")[2].split()[0])

    for epoch in range(15):
        for number, batch in enumerate(loader):
            check(batch, array)
            if epoch % 5 == number:
                break  # some epochs end early
        del batch
        if epoch == 2:
            before, before_kib = resources(), shared_memory_kib()
    assert holds_soon(lambda: all(map(operator.le, resources(), before)))
    two_segments_kib = 2 * (2048 + 8 * 64 + 64)  # control page, slots, rounding
    assert shared_memory_kib() <= before_kib + two_segments_kib
    assert dataset.stats()["held_buffers"] == 0


class Keeping(IterableDataset[Any]):
    """Leaves its iterator to the end of the process, in the middle of reading."""

    def __init__(self, dataset: s3io.RecordDataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        _kept.append(iter(self.dataset))
        for _ in range(3):
            yield next(_kept[-1])


_kept: list[Any] = []


def test_iterators_that_a_worker_still_has_at_its_end_cost_no_memory(disk):
    path, array = write(disk)
    dataset = make(path, pool=small_pool(8))
    mappings = []
    for _ in range(4):
        for batch in DataLoader(Keeping(dataset), batch_size=None, num_workers=1):
            check(batch, array)
        mappings.append(len(pool_mappings()))
    assert mappings == mappings[:1] * 4  # the main process needs to see no other segment


def test_deleting_a_loader_in_mid_epoch_leaves_nothing(disk):
    path, array = write(disk)
    with nothing_leaked(), warnings.catch_warnings():
        dataset = make(path)
        loader = s3io.DataLoader(dataset, num_workers=2)
        batches = iter(loader)
        held = next(batches)
        del batches, loader
        gc.collect()
        check(held, array)
        del dataset
        gc.collect()
        check(held, array)  # the memory lives as long as the batch
        del held
        gc.collect()
