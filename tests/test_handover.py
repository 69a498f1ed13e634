"""Batches from worker processes: the same bytes, untouched, and buffers that come back."""

from __future__ import annotations

import collections
import copy
import dataclasses
import gc
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import QUICK_CONTEXTS, worker_count
from torch.utils.data import DataLoader, IterableDataset

import torch_s3io as s3io

ROWS, COLUMNS, BATCH = 480, 300, 8
Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Sample:
    rows: torch.Tensor
    number: int


def write(folder: Path, rows: int = ROWS) -> tuple[Path, np.ndarray]:
    array = np.arange(rows * COLUMNS, dtype=np.int32).reshape(rows, COLUMNS)
    path = folder / "rows.bin"
    array.tofile(path)
    return path, array


def make(path: Path, **options: Any) -> s3io.RecordDataset:
    options = {"batch_size": BATCH, "return_index": True, **options}
    return s3io.RecordDataset(path, dtype=np.int32, shape=COLUMNS, **options)


def small_pool(capacity: int) -> s3io.BufferPoolConfig:
    return s3io.BufferPoolConfig(capacity=capacity, buffer_size=64 << 10, alignment=4096)


def check(batch: Any, array: np.ndarray) -> None:
    rows, index = batch
    np.testing.assert_array_equal(rows.numpy(), array[index.numpy()])


def handed_over(dataset: s3io.RecordDataset) -> int:
    return int(dataset.stats()["received_tensors"])


@pytest.mark.parametrize(
    ("context", "persistent"), [*itertools.product(QUICK_CONTEXTS, (True, False)), ("spawn", True)]
)
def test_batches_arrive_untouched_in_order_epoch_after_epoch(disk, context, persistent):
    path, array = write(disk)
    dataset = make(path)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        persistent_workers=persistent,
        multiprocessing_context=context,
    )
    for epoch in range(1, 4):
        numbers: list[int] = []
        for rows, index in loader:
            check((rows, index), array)
            numbers += index.tolist()
            del rows, index
        assert numbers == list(range(ROWS))
        assert handed_over(dataset) == epoch * 2 * ROWS // BATCH
    stats = dataset.stats()
    assert stats["held_out_tensors"] == 0
    assert stats["stale_tensors"] == 0
    assert stats["held_buffers"] == 0
    assert stats["batches"] == 3 * ROWS // BATCH
    del loader
    gc.collect()


def as_dict(batch: Any) -> Any:
    rows, index = batch
    return {"rows": rows, "deep": [index, {"half": rows[:, ::2]}]}


def as_pair(batch: Any) -> Any:
    return Pair(*batch)


def as_dataclass(batch: Any) -> Any:
    rows, index = batch
    return Sample(rows, int(index[0]))


def with_new(batch: Any) -> Any:
    rows, index = batch
    return rows, index, rows.float() * 2, rows.view(torch.uint8), rows[0], rows[:, 7:9].T


class Wrapped(IterableDataset[Any]):
    """Somebody's data set around ours."""

    def __init__(self, dataset: s3io.RecordDataset, function: Any) -> None:
        self.dataset = dataset
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        for batch in self.dataset:
            yield self.function(batch)


@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_structures_views_and_new_tensors_come_through_a_wrapping_data_set(disk, context):
    path, array = write(disk, 64)
    dataset = make(path)

    def loader(function: Any) -> Any:
        return DataLoader(
            Wrapped(dataset, function),
            batch_size=None,
            num_workers=1,
            multiprocessing_context=context,
        )

    for batch in loader(as_dict):
        index = batch["deep"][0]
        check((batch["rows"], index), array)
        np.testing.assert_array_equal(batch["deep"][1]["half"], array[index.numpy()][:, ::2])
        assert type(batch["rows"]) is torch.Tensor
    for batch in loader(as_pair):
        assert type(batch) is Pair
        check(batch, array)
    for batch in loader(as_dataclass):
        assert type(batch) is Sample
        np.testing.assert_array_equal(batch.rows, array[batch.number : batch.number + BATCH])
    for rows, index, new, as_bytes, first, part in loader(with_new):
        wanted = array[index.numpy()]
        np.testing.assert_array_equal(new, wanted.astype(np.float32) * 2)
        np.testing.assert_array_equal(as_bytes, wanted.view(np.uint8))
        np.testing.assert_array_equal(first, wanted[0])
        np.testing.assert_array_equal(part, wanted[:, 7:9].T)
        check((rows, index), array)
    # Per batch: 3 + 2 + 1 + 5 views; the new tensor went torch's own way.
    assert handed_over(dataset) == 8 * (3 + 2 + 1 + 5)


def test_a_collate_function_in_the_worker_sees_ordinary_tensors(disk):
    path, array = write(disk, 64)
    dataset = make(path)
    for batch in DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=as_dict):
        check((batch["rows"], batch["deep"][0]), array)
    assert handed_over(dataset) == 3 * 8


def test_main_takes_no_page_fault_per_batch(disk):
    """A page is faulted in once per process and buffer; a slow loop may meet a buffer late."""
    import resource

    path, _ = write(disk, 9600)
    dataset = make(path, batch_size=64, return_index=False)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    faults_per_batch: list[float] = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        batches = 0
        for _ in range(3):
            for batch in loader:
                batches += 1
                batch.sum()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        faults_per_batch.append(faults / batches)
        if faults_per_batch[-1] < 0.2:
            break
    del batch, loader
    assert faults_per_batch[-1] < 0.2, faults_per_batch


def test_without_a_pool_batches_go_torchs_own_way(disk):
    path, array = write(disk, 64)
    dataset = make(path, pool=None)
    for batch in DataLoader(dataset, batch_size=None, num_workers=2):
        check(batch, array)
    assert "received_tensors" not in dataset.stats()


class MadeInTheWorker(IterableDataset[Any]):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Any]:
        yield from make(self.path)


def test_a_data_set_made_in_the_worker_goes_torchs_own_way(disk):
    path, array = write(disk, 64)
    batches = list(DataLoader(MadeInTheWorker(path), batch_size=None, num_workers=1))
    assert len(batches) == 8
    for batch in batches:
        check(batch, array)


@pytest.mark.parametrize("name", ["batch_size", "shuffle", "drop_last", "sampler", "batch_sampler"])
def test_what_the_data_set_does_is_refused_in_our_loader_with_where_to_set_it(disk, name):
    value = {"batch_size": 4, "shuffle": True, "drop_last": True}.get(name, [[0]])
    where = "RecordMapDataset" if name.endswith("sampler") else rf"with_options\({name}="
    with pytest.raises(s3io.ConfigError, match=rf"^{name}=.*{where}"):
        s3io.DataLoader(make(write(disk)[0]), **{name: value})


def test_a_loader_says_what_it_reads(disk):
    loader = s3io.DataLoader(make(write(disk)[0]), num_workers=2, shuffle=False, drop_last=0)
    assert repr(loader) == f"DataLoader({loader.dataset!r}, num_workers=2)"


def test_our_loader_has_the_right_defaults_and_counts(disk):
    path, array = write(disk)
    dataset = make(path)
    loader = s3io.DataLoader(dataset, num_workers=2)
    assert loader.batch_size is None
    assert loader.persistent_workers
    assert loader.prefetch_factor == 8  # the pool has 64 buffers
    assert loader.pin_memory == torch.cuda.is_available()
    for _ in range(2):
        for batch in loader:
            check(batch, array)
    del batch
    stats = loader.stats()
    assert stats["loop_batches"] == 2 * ROWS // BATCH
    assert stats["batch_bytes"] == 2 * array.nbytes
    assert 0 < stats["loop_wait_s"] <= stats["loop_s"]
    assert stats["wait_share"] == pytest.approx(stats["loop_wait_s"] / stats["loop_s"])
    assert stats["gb_per_s"] == pytest.approx(2 * array.nbytes / 1e9 / stats["loop_s"])
    in_process = s3io.DataLoader(dataset)
    for batch in in_process:
        check(batch, array)


def test_workers_read_what_this_process_read_through_the_page_cache_before(disk):
    """Its third pass is one, and asks less of a buffer than the direct reads of workers."""
    path, array = write(disk, 4800)
    plain = make(path, batch_size=100)
    mixed = s3io.Mix([make(path, batch_size=100)])
    zipped = s3io.Zip(a=make(path, batch_size=100), return_index=True)
    for dataset, records_of in ((plain, None), (mixed, None), (zipped, "a")):
        for _ in range(2):
            for batch in dataset:
                del batch
        numbers: list[int] = []
        for records, index in s3io.DataLoader(dataset, num_workers=2):
            check((records if records_of is None else records[records_of], index), array)
            numbers += index.tolist()
        assert sorted(numbers) == list(range(4800))


def in_main_process(path: Path, **options: Any) -> dict[str, Any]:
    dataset = make(path, **options)
    for _ in dataset:
        pass
    return dataset.stats()


@pytest.mark.parametrize(
    ("context", "pool"), [*itertools.product(QUICK_CONTEXTS, ("auto", None)), ("spawn", None)]
)
def test_what_workers_read_is_counted_also_without_shared_memory(disk, pool, context):
    path, array = write(disk)
    alone = in_main_process(path, pool=pool)
    dataset = make(path, pool=pool)
    loader = s3io.DataLoader(
        dataset,
        num_workers=worker_count(context),
        multiprocessing_context=context,
        persistent_workers=False,
    )
    for epoch in range(1, 3):
        for _ in loader:
            pass
        stats = loader.stats()
        assert stats["batches"] == epoch * ROWS // BATCH
        assert stats["batch_bytes"] == epoch * array.nbytes
        assert stats["requests"] > 0
        assert stats["direct_bytes"] + stats["cached_bytes"] + stats["buffered_bytes"] > 0
        assert stats["gb_per_s"] > 0
        assert (stats["engine"], stats["page_size"]) == (alone["engine"], alone["page_size"])


def unchanged(batch: Any) -> Any:
    return batch


def test_what_a_wrapped_data_set_read_is_in_its_own_stats(disk):
    path, array = write(disk)
    dataset = make(path)
    loader = s3io.DataLoader(Wrapped(dataset, unchanged), num_workers=1)
    for batch in loader:
        check(batch, array)
    assert loader.stats()["loop_batches"] == ROWS // BATCH
    assert "gb_per_s" not in loader.stats()
    assert dataset.stats()["batch_bytes"] == array.nbytes


def test_what_workers_fetch_by_number_is_counted(disk):
    path, array = write(disk)
    dataset = make(path)
    loader = DataLoader(s3io.RecordMapDataset(dataset), batch_size=BATCH, num_workers=2)
    assert sum(len(index) for _, index in loader) == ROWS
    assert dataset.stats()["batch_bytes"] == array.nbytes


def test_a_number_of_workers_may_be_numpys(disk):
    loader = s3io.DataLoader(make(write(disk)[0]), num_workers=np.int64(2))
    assert (loader.num_workers, loader.persistent_workers, loader.prefetch_factor) == (2, True, 8)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_a_loader_in_use_may_be_copied_and_pickled(disk, num_workers, how):
    path, array = write(disk)
    loader = s3io.DataLoader(make(path), num_workers=num_workers)
    batches = iter(loader)
    first = next(batches)
    copies = {"copy": copy.copy, "deepcopy": copy.deepcopy}
    make_copy = copies.get(how, lambda one: pickle.loads(pickle.dumps(one)))
    other = make_copy(loader)
    for batch in other:
        check(batch, array)
    received = [first[1].tolist(), *(index.tolist() for _, index in batches)]
    assert list(itertools.chain(*received)) == list(range(ROWS))


def test_our_loader_refuses_what_cannot_work(disk):
    path, _ = write(disk)
    dataset = make(path)
    with pytest.raises(s3io.ConfigError, match="batch_size"):
        s3io.DataLoader(dataset, batch_size=4)
    with pytest.raises(s3io.ConfigError, match="num_workers"):
        s3io.DataLoader(dataset, prefetch_factor=2)
    with pytest.raises(s3io.ConfigError, match="prefetch_factor must be at least 1"):
        s3io.DataLoader(dataset, num_workers=2, prefetch_factor=0)
    with pytest.raises(s3io.ConfigError, match="num_workers must be an integer, not '2'"):
        s3io.DataLoader(dataset, num_workers="2")
    with pytest.raises(s3io.ConfigError, match="progress"):
        s3io.DataLoader(dataset, progress="yes")


def test_progress_is_shown_when_asked_for(disk, capsys, monkeypatch):
    import tqdm

    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else its own thread stays
    path, _ = write(disk)
    for _ in s3io.DataLoader(make(path), progress=True):
        pass
    assert f"{ROWS // BATCH}/{ROWS // BATCH}" in capsys.readouterr().err
