"""DataLoader workers, fork, spawn and pickling: each record once, in order, whoever reads it."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import traceback

import numpy as np
import pytest
import torch
from support import end_workers, pool_mappings, raise_warnings, random_bytes, write_file
from torch.utils.data import DataLoader, IterableDataset, default_collate

import torch_s3io
from torch_s3io import BufferPoolConfig, RecordDataset

RECORD_BYTES = 700
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def write_files(folder, counts=(33, 0, 1, 50)):
    arrays = []
    for number, count in enumerate(counts):
        data = random_bytes(count * RECORD_BYTES, number)
        write_file(folder / f"{number}.bin", data)
        arrays.append(np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES))
    return f"{folder}/*.bin", np.concatenate(arrays)


def make(paths, **options):
    return RecordDataset(
        paths, dtype="u1", shape=RECORD_BYTES, **{"batch_size": 8, "return_index": True, **options}
    )


def check_epoch(batches, array, batch_size, drop_last):
    sizes, position = [], 0
    for rows, index in batches:
        assert index.tolist() == list(range(position, position + len(rows)))
        np.testing.assert_array_equal(rows.numpy(), array[position : position + len(rows)])
        position += len(rows)
        sizes.append(len(rows))
    full, rest = divmod(len(array), batch_size)
    assert sizes == [batch_size] * full + ([rest] if rest and not drop_last else [])


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_record_comes_once_and_in_order(disk, engine, num_workers, drop_last):
    paths, array = write_files(disk)
    dataset = make(paths, engine=engine, drop_last=drop_last)
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    for _ in range(2):
        check_epoch(loader, array, 8, drop_last)
    assert len(loader) == len(dataset)


@pytest.mark.parametrize("pool", ["auto", None, BufferPoolConfig(capacity=2, buffer_size=1 << 16)])
def test_workers_run_with_every_kind_of_pool(disk, pool):
    paths, array = write_files(disk)
    loader = DataLoader(make(paths, pool=pool), batch_size=None, num_workers=2)
    check_epoch(loader, array, 8, False)


def test_persistent_workers_run_several_epochs(disk):
    paths, array = write_files(disk)
    loader = DataLoader(make(paths), batch_size=None, num_workers=2, persistent_workers=True)
    for _ in range(3):
        check_epoch(loader, array, 8, False)


def test_more_workers_than_batches_are_no_problem(disk):
    paths, array = write_files(disk, (3,))
    loader = DataLoader(make(paths), batch_size=None, num_workers=3)
    check_epoch(loader, array, 8, False)


def test_all_batches_of_workers_may_be_kept(disk):
    paths, array = write_files(disk)
    pool = BufferPoolConfig(capacity=3, buffer_size=1 << 16)
    loader = DataLoader(make(paths, pool=pool), batch_size=None, num_workers=2)
    check_epoch(list(loader), array, 8, False)


def test_single_samples_are_collated_by_the_loader(disk):
    paths, array = write_files(disk)
    dataset = make(paths, batch_size=None, return_index=False)
    loader = DataLoader(dataset, batch_size=8, collate_fn=default_collate)
    got = torch.cat(list(loader))
    np.testing.assert_array_equal(got.numpy(), array)


def test_samples_of_workers_are_each_there_once(disk):
    paths, array = write_files(disk)
    loader = DataLoader(make(paths, batch_size=None), batch_size=None, num_workers=2)
    samples = sorted(((int(index), row) for row, index in loader), key=lambda item: item[0])
    assert [number for number, _ in samples] == list(range(len(array)))
    np.testing.assert_array_equal(torch.stack([row for _, row in samples]).numpy(), array)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}],
    ids=["main", "workers", "persistent"],
)
def test_a_loader_that_would_stack_batches_is_told_how_not_to(disk, options, batch_size):
    paths, _ = write_files(disk)
    for dataset in (make(paths, shuffle=True), torch_s3io.Zip(rows=make(paths), batch_size=8)):
        loader = DataLoader(dataset, batch_size=batch_size, **options)
        for _ in range(2):
            batches = iter(loader)
            with pytest.raises(torch_s3io.ConfigError, match="give batch_size=None to the DataL"):
                next(batches)
            if not loader.persistent_workers:
                end_workers(batches)
        end_workers(batches)
        # Nothing has begun: neither is the epoch counted, nor does it begin once more.
        assert dataset.epoch == 0
        loader = DataLoader(dataset, batch_size=None, worker_init_fn=raise_warnings, **options)
        assert sum(1 for _ in loader) == len(dataset)


class Passed(IterableDataset):
    """Somebody's data set, which makes one sample of each of our batches."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return map(take_rows, iter(self.dataset))


def take_rows(batch):
    return batch[0]


def stack(batches):
    return default_collate(batches)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_who_means_to_stack_batches_may(disk, num_workers):
    paths, array = write_files(disk)
    for dataset, collate_fn in (
        (Passed(make(paths, batch_size=6)), None),
        (make(paths, batch_size=6, return_index=False), stack),
    ):
        loader = DataLoader(dataset, batch_size=2, num_workers=num_workers, collate_fn=collate_fn)
        stacked = list(loader)
        assert [list(batch.shape[:2]) for batch in stacked] == [[2, 6]] * 7
        np.testing.assert_array_equal(torch.cat(stacked).flatten(0, 1).numpy(), array)


def test_an_iteration_that_is_given_up_leaves_the_loader_usable(disk):
    paths, array = write_files(disk)
    loader = DataLoader(make(paths), batch_size=None, num_workers=2)
    for _ in loader:
        break
    check_epoch(loader, array, 8, False)


def test_an_error_in_a_worker_arrives_with_its_class_and_text(disk):
    paths, _ = write_files(disk, (100, 100))
    dataset = make(paths)
    write_file(disk / "1.bin", bytes(50 * RECORD_BYTES))
    batches = iter(DataLoader(dataset, batch_size=None, num_workers=1))
    with pytest.raises(torch_s3io.FileChangedError, match=r"1\.bin"):
        list(batches)
    end_workers(batches)


@pytest.mark.usefixtures("new_interpreters")
def test_spawned_workers_get_a_pickled_data_set(disk):
    paths, array = write_files(disk)
    dataset = make(paths)
    next(iter(dataset))
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    check_epoch(loader, array, 8, False)


def test_a_data_set_survives_pickling_and_copying_also_while_it_is_iterated(disk):
    paths, array = write_files(disk)
    dataset = make(paths)
    iterator = iter(dataset)
    held = next(iterator)
    for other in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset), copy.deepcopy(dataset)):
        assert repr(other) == repr(dataset)
        check_epoch(other, array, 8, False)
        assert other.stats()["batches"] == len(other)
    np.testing.assert_array_equal(held[0].numpy(), array[:8])


def in_a_forked_child(work) -> None:
    """Runs ``work`` in a child; what goes wrong there is an assertion here."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs dies
        text = ""
        try:
            work()
        except BaseException:
            text = traceback.format_exc()
        os.write(write_end, text.encode())
        os._exit(1 if text else 0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, text or "the child died"


def test_a_forked_child_reads_for_itself_and_leaves_its_parents_buffers_alone(disk, engine):
    paths, array = write_files(disk)
    dataset = make(paths, engine=engine)
    iterator = iter(dataset)
    held = [next(iterator)]

    def work() -> None:
        check_epoch(dataset, array, 8, False)
        np.testing.assert_array_equal(dataset.get_batch([40])[0].numpy(), array[[40]])
        held.clear()  # must not free what the parent holds

    before = dataset.stats()["pool_in_use"]
    in_a_forked_child(work)
    assert dataset.stats()["pool_in_use"] >= 1
    assert before >= 1
    rest = [(rows.clone(), index.clone()) for rows, index in iterator]
    check_epoch([*held, *rest], array, 8, False)
    held.clear()
    assert dataset.stats()["pool_in_use"] == 0


def test_a_forked_childs_copy_of_an_iterator_refuses_to_work(disk):
    paths, array = write_files(disk)
    dataset = make(paths)
    iterator = iter(dataset)
    first = [next(iterator)[0].clone()]

    def work() -> None:
        with pytest.raises(torch_s3io.ConfigError, match="after fork"):
            next(iterator)

    in_a_forked_child(work)
    rest = [rows.clone() for rows, _ in iterator]
    np.testing.assert_array_equal(torch.cat(first + rest).numpy(), array)


def test_a_forked_child_may_drop_its_copy_of_an_iterator_at_any_moment(disk, engine):
    paths, array = write_files(disk, (3000,))
    dataset = make(paths, engine=engine, batch_size=1, pool="auto")
    iterators = [iter(dataset)]
    next(iterators[0])
    for _ in range(40):
        for _ in range(20):
            next(iterators[0])
        in_a_forked_child(iterators.clear)
    rows, index = next(iterators[0])
    np.testing.assert_array_equal(rows.numpy(), array[index.numpy()])


def test_a_child_that_ends_while_it_holds_batches_takes_nothing_with_it(disk):
    paths, array = write_files(disk)
    dataset = make(paths)
    iterator = iter(dataset)
    held = next(iterator)
    in_a_forked_child(lambda: held[0].sum())
    np.testing.assert_array_equal(held[0].numpy(), array[:8])
    assert len(pool_mappings()) == 1  # that of the pool
