"""Every kind of data set, in every store: a format and a store that are made in a test are as good
as those that are there."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import line_format
import numpy as np
import pytest
from buckets import needs_s3, path_of, put_files, serving
from memory_files import MEMORY
from order_check import (
    check_goes_on_elsewhere,
    check_number_samples,
    check_read_and_resumed,
    check_shared_out_and_resumed,
    write_number_samples,
    write_numbers,
)
from token_files import write_megatron

import torch_s3io as s3io

COUNT = 36
WINDOW = 5
assert line_format  # registers itself

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def write_lines(folder: Path, count: int) -> Path:
    folder.mkdir()
    for part, numbers in enumerate(np.array_split(np.arange(count), 3)):
        lines = [f"{number}, " * int(number) + "\n" for number in numbers]
        (folder / f"{part}.txt").write_text("".join(lines))
    return folder / "*.txt"


def write_tars(folder: Path, count: int) -> Path:
    folder.mkdir()
    for part, numbers in enumerate(np.array_split(np.arange(count), 3)):
        with tarfile.open(folder / f"{part}.tar", "w") as archive:
            for number in numbers.tolist():
                for field, text in (("txt", f"{number}, " * number), ("cls", f"{number}\n")):
                    info = tarfile.TarInfo(f"{number:03}.{field}")
                    info.size = len(text)
                    archive.addfile(info, io.BytesIO(text.encode()))
    return folder / "*.tar"


def read_tars(path: str, **options: Any) -> s3io.SampleDataset:
    return s3io.SampleDataset.from_tar(path, decode={"cls": int}, return_key=True, **options)


def check_tars(rows: Any, index: Any) -> None:
    numbers = index.tolist()
    texts = [bytes(text.numpy()).decode() for text in rows["txt"]]
    assert texts == [f"{number}, " * number for number in numbers]
    assert rows["cls"].tolist() == numbers
    assert rows["key"] == [f"{number:03}" for number in numbers]


def check_numbers(rows: Any, index: Any) -> None:
    assert rows.tolist() == [[number, number] for number in index.tolist()]


def check_lines(rows: Any, index: Any) -> None:
    lines = [bytes(line.numpy()).decode() for line in rows["line"]]
    assert lines == [f"{number}, " * number for number in index.tolist()]


def write_documents(folder: Path, count: int) -> Path:
    folder.mkdir()
    for part, numbers in enumerate(np.array_split(np.arange(count), 3)):
        write_megatron(folder / f"{part}", [np.full(number, number) for number in numbers])
    return folder / "*.bin"


def check_documents(rows: Any, index: Any) -> None:
    assert [row.tolist() for row in rows] == [[number] * number for number in index.tolist()]


def write_windows(folder: Path, count: int) -> Path:
    """Each document is a window."""
    folder.mkdir()
    for part, numbers in enumerate(np.array_split(np.arange(count), 3)):
        write_megatron(folder / f"{part}", [np.full(WINDOW, number) for number in numbers])
    return folder / "*.bin"


def check_windows(rows: Any, index: Any) -> list[int]:
    """Which document a window has is up to the epoch: they are known by their documents."""
    numbers: list[int] = rows[:, 0].tolist()
    assert rows.tolist() == [[number] * WINDOW for number in numbers]
    assert len(numbers) == len(index)
    return numbers


def write_arrays(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        np.save(folder / f"{number:02}.npy", np.full((number + 1, 2), number, "<i4"))
    return folder / "*.npy"


def check_arrays(rows: Any, index: Any) -> None:
    arrays = [array.tolist() for array in rows["data"]]
    assert arrays == [[[number] * 2] * (number + 1) for number in index.tolist()]


def write_archives(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        np.savez(folder / f"{number:02}.npz", x=np.full(number + 1, number, "<f8"), y=number)
    return folder / "*.npz"


def check_archives(rows: Any, index: Any) -> None:
    numbers = index.tolist()
    arrays = [array.tolist() for array in rows["x"]]
    assert arrays == [[number] * (number + 1) for number in numbers]
    assert rows["y"].tolist() == numbers


def write_files(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"{number % 3}" / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}, " * number)
    return folder / "*" / "*.txt"


def check_files(rows: Any, index: Any) -> None:
    """Sorted by their names, so those of each folder follow each other."""
    numbers = sorted(range(COUNT), key=lambda number: (number % 3, number))
    numbers = [numbers[place] for place in index.tolist()]
    texts = [bytes(text.numpy()).decode() for text in rows["data"]]
    assert texts == [f"{number}, " * number for number in numbers]
    assert rows["label"].tolist() == [number % 3 for number in numbers]


# What writes it, what reads it, what checks a batch, and gives its numbers, where those of the
# records are others.
KINDS: dict[
    str, tuple[Callable[..., Path], Callable[..., Any], Callable[..., list[int] | None]]
] = {
    "records": (
        lambda folder, count: write_numbers(folder, count),
        lambda path, **options: s3io.RecordDataset(path, dtype=np.int64, shape=2, **options),
        check_numbers,
    ),
    "samples": (write_number_samples, s3io.SampleDataset, check_number_samples),
    "lines": (write_lines, s3io.SampleDataset, check_lines),
    "documents": (
        write_documents,
        lambda path, **options: s3io.TokenDataset(path, documents="single", **options),
        check_documents,
    ),
    "windows": (
        write_windows,
        lambda path, **options: s3io.TokenDataset(path, window=WINDOW, stride=WINDOW, **options),
        check_windows,
    ),
    "arrays": (write_arrays, s3io.SampleDataset.from_npy_files, check_arrays),
    "archives": (
        write_archives,
        lambda path, **options: s3io.SampleDataset.from_npz(path, fields=("x", "y"), **options),
        check_archives,
    ),
    "files": (
        write_files,
        lambda path, **options: s3io.SampleDataset.from_files(path, labels="folder", **options),
        check_files,
    ),
    "tars": (write_tars, read_tars, check_tars),
}


class Kind:
    """A data set of this kind in this store; batches of 4, with their numbers."""

    def __init__(self, name: str, store: str, folder: Path, **store_options: Any) -> None:
        self.name = name
        write, self._make, self._check = KINDS[name]
        self.path = str(write(folder / name, COUNT))
        if store == "s3":
            put_files(store_options["server"], folder / name)
            self.path = path_of(Path(self.path))
        if store == "memory":
            MEMORY.clear(**store_options)
            top = folder / name
            files = [top] if top.is_file() else sorted(filter(Path.is_file, top.rglob("*")))
            for file in files:
                MEMORY.put(self._in_memory(file), file.read_bytes())
            self.path = self._in_memory(Path(self.path))

    @staticmethod
    def _in_memory(file: Path) -> str:
        return "memory:/" + str(file)

    def make(self, **options: Any) -> Any:
        options = {"batch_size": 4, "shuffle": True, "seed": 3, "return_index": True, **options}
        return self._make(self.path, **options)

    def read(self, batches: Any) -> list[list[int]]:
        """The numbers in every batch, each checked to have what was written."""
        numbers = []
        for batch, index in batches:
            numbers.append(self._check(batch, index) or index.tolist())
        return numbers


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


STORES = ("files", "memory")
CASES = list(itertools.product(KINDS, STORES))


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    yield Kind(*request.param, tmp_path)
    MEMORY.clear()


@pytest.mark.parametrize("shuffle", [False, True, "block"])
def test_every_one_comes_once(kind, shuffle):
    dataset = kind.make(shuffle=shuffle, **({"block_records": 3} if shuffle == "block" else {}))
    order = flat(kind.read(dataset))
    assert sorted(order) == list(range(COUNT))
    assert (order == sorted(order)) is (not shuffle)
    assert flat(kind.read(dataset.with_options(pool=None, batch_size=50))) == order


@needs_s3
@pytest.mark.parametrize("name", KINDS)
def test_each_is_read_from_a_bucket(tmp_path, name):
    with serving() as server:
        kind = Kind(name, "s3", tmp_path, server=server)
        assert sorted(flat(kind.read(kind.make()))) == list(range(COUNT))
        if name in ("records", "tars"):
            check_read_and_resumed(kind.make, kind.read, steps=9)


@needs_s3
@pytest.mark.parametrize("name", ["records", "tars"])
def test_a_mixture_of_files_and_of_a_bucket(tmp_path, name):
    (tmp_path / "other").mkdir()
    with serving() as server:
        parts = [
            Kind(name, "s3", tmp_path, server=server),
            Kind(name, "files", tmp_path / "other"),
        ]
        mix = s3io.Mix([part.make() for part in parts], seed=5)
        origins = set()
        for batch, index in mix:
            parts[0].read([(batch, index % COUNT)])
            origins |= set((index // COUNT).tolist())
        assert origins == {0, 1}


def test_epochs_and_states(kind):
    check_read_and_resumed(kind.make, kind.read, steps=9)


@pytest.mark.parametrize(
    ("name", "store"), [("samples", "files"), ("lines", "memory"), ("tars", "files")]
)
def test_ranks_and_workers(tmp_path, name, store):
    kind = Kind(name, store, tmp_path)

    def share(rank: int, world: int) -> Any:
        return kind.make(rank=rank, world_size=world, pool=None)

    check_shared_out_and_resumed(share, kind.read)


# Every kind with one of them, and each of them.
@pytest.mark.parametrize(("name", "store"), list(zip(KINDS, itertools.cycle(STORES), strict=False)))
def test_workers(tmp_path, name, store):
    kind = Kind(name, store, tmp_path)
    order = flat(kind.read(kind.make()))

    def loader(rank: int, world: int, workers: int) -> s3io.DataLoader:
        return s3io.DataLoader(kind.make(rank=rank, world_size=world), num_workers=workers)

    check_goes_on_elsewhere(loader, kind.read, order)


@pytest.mark.usefixtures("new_interpreters")
def test_spawned_workers_know_the_store_as_well(tmp_path):
    kind = Kind("lines", "memory", tmp_path)
    dataset = kind.make()
    loader = s3io.DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
    assert flat(kind.read(loader)) == flat(kind.read(kind.make()))


def test_any_of_them_by_number(kind):
    dataset = kind.make(shuffle=False)
    assert kind.read([dataset.get_batch([7, 3, 7, COUNT - 1])]) == [[7, 3, 7, COUNT - 1]]
    with pytest.raises(s3io.RangeError):
        dataset.get_batch([1 << 48 if kind.name == "windows" else COUNT])
    records = s3io.RecordMapDataset(dataset)
    assert len(records) == COUNT
    assert kind.read([records[-2:]]) == [[COUNT - 2, COUNT - 1]]


def test_one_by_one(kind):
    samples = list(kind.make(batch_size=None))
    assert [int(index) for _, index in samples] == flat(
        [index.tolist() for _, index in kind.make()]
    )


def test_views_mixtures_and_parallel_ones(kind):
    dataset = kind.make()
    parts = [flat(kind.read(part)) for part in dataset.split([0.5, 0.5])]
    assert [len(part) for part in parts] == [18, 18]
    assert sorted(flat(parts)) == list(range(COUNT))
    mix = s3io.Mix([dataset.subset(0, 10), dataset.subset(10, COUNT)], num_records=COUNT)
    mixed = kind.read((batch, index % COUNT) for batch, index in mix)  # numbers of all parts
    assert len(flat(mixed)) == COUNT
    if kind.name == "windows":
        with pytest.raises(s3io.ConfigError, match="others in every epoch"):
            s3io.Zip(one=dataset, other=dataset)
        return
    pairs = s3io.Zip(one=dataset, other=dataset, batch_size=5, return_index=True)
    assert len(pairs) == 8
    for name in ("one", "other"):
        assert len(kind.read((batch[name], index) for batch, index in pairs)) == 8


def test_a_look_and_statistics(kind):
    dataset = kind.make()
    first = kind.read([dataset.peek()])
    batches = kind.read(dataset)
    assert first == batches[:1]
    stats = dataset.stats()
    assert (stats["batches"], dataset.epoch) == (9, 0)
    assert str(COUNT) in repr(dataset)


@pytest.mark.parametrize(
    ("name", "engine"), list(zip(KINDS, itertools.cycle(["uring", "threads"]), strict=False))
)
def test_a_mixture_of_what_lies_in_several_stores(tmp_path, name, engine):
    (tmp_path / "other").mkdir()
    in_memory, on_disk = Kind(name, "memory", tmp_path), Kind(name, "files", tmp_path / "other")
    options = {"engine": engine, "direct": "require"}
    parts = [in_memory.make(**options), on_disk.make(**options)]

    def mixture() -> s3io.Mix:
        return s3io.Mix(parts, seed=5)

    def read(batches: Any) -> list[list[int]]:
        numbers = []
        for batch, index in batches:
            in_memory.read([(batch, index % COUNT)])
            numbers.append(index.tolist())
        return numbers

    order = flat(read(mixture()))
    assert {number >= COUNT for number in order} == {False, True}
    assert flat(read(s3io.DataLoader(mixture(), num_workers=2))) == order
    check_read_and_resumed(mixture, read, steps=3)
    mix = mixture()
    assert read([mix.get_batch([0, COUNT, COUNT - 1])]) == [[0, COUNT, COUNT - 1]]
    stats = mix.stats()
    assert stats["direct"] == "mixed"
    MEMORY.put(in_memory.make().files[0].path, b"another one")
    with pytest.raises(s3io.FileChangedError, match="memory://"):
        list(mixture())


MEMORY_FAULTS = [
    ({"failing_read": 0}, s3io.ReadError, "this read fails"),
    ({"lost_reads_from": 0}, s3io.ReadTimeoutError, "read_timeout_s"),
]


@pytest.mark.parametrize(("fault", "error", "text"), MEMORY_FAULTS)
@pytest.mark.parametrize("name", KINDS)
def test_reads_that_fail_or_never_come(tmp_path, monkeypatch, name, fault, error, text):
    monkeypatch.setattr("torch_s3io.format.tar.build_index._READ_TIMEOUT_S", 0.2)
    kind = Kind(name, "memory", tmp_path, **fault)
    with pytest.raises(error, match=text):
        next(iter(kind.make(read_timeout_s=0.2)))


@pytest.mark.parametrize("name", KINDS)
def test_slow_reads_in_blocks_of_few_open_objects(tmp_path, name):
    kind = Kind(name, "memory", tmp_path, slowness_ms=1, block_bytes=512, max_open=1)
    order = flat(kind.read(kind.make()))
    loader = s3io.DataLoader(kind.make(), num_workers=2)
    assert flat(kind.read(loader)) == order


@pytest.mark.parametrize("name", KINDS)
def test_an_object_that_changes_is_an_error(tmp_path, name):
    kind = Kind(name, "memory", tmp_path)
    dataset = kind.make(batch_size=1, pool=None)
    for path in [shard.path for shard in dataset.files]:
        MEMORY.put(path, bytes(MEMORY.read(path)))
    with pytest.raises(s3io.FileChangedError):
        list(dataset)
