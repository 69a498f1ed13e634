"""What torch users do first with a data set: each works, or says which call of ours does it."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data as torch_data

import torch_s3io as s3io

RECORDS = 100
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.arange(RECORDS).tofile(tmp_path / "a.bin")
    return tmp_path / "a.bin"


def open_set(path: Path) -> s3io.RecordDataset:
    return s3io.RecordDataset(path, dtype=np.int64, batch_size=10)


def numbers_of(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch.reshape(-1)]


AS_IF_MAP_STYLE = {
    "an index": lambda dataset: dataset[0],
    "a negative index": lambda dataset: dataset[-1],
    "a slice": lambda dataset: dataset[:100],
    "Subset": lambda dataset: torch_data.Subset(dataset, range(10))[0],
    "Subset in a loader": lambda dataset: list(
        torch_data.DataLoader(torch_data.Subset(dataset, range(10)), num_workers=1)
    ),
    "random_split by numbers": lambda dataset: torch_data.random_split(dataset, [8, 2]),
    "random_split by records": lambda dataset: torch_data.random_split(dataset, [80, 20]),
    "random_split by fractions": lambda dataset: torch_data.random_split(dataset, [0.8, 0.2]),
    "ConcatDataset": lambda dataset: torch_data.ConcatDataset([dataset, dataset]),
}


@pytest.mark.parametrize("what", AS_IF_MAP_STYLE)
def test_who_takes_it_for_a_map_style_data_set_is_told_what_is_one(path, what):
    dataset = open_set(path)
    with pytest.raises(s3io.ConfigError) as caught:
        AS_IF_MAP_STYLE[what](dataset)
    for call in ("subset(", "split(", "get_batch(", "RecordMapDataset", "Mix"):
        assert call in str(caught.value)
    with pytest.raises(s3io.ConfigError, match="RecordMapDataset of each of its parts"):
        AS_IF_MAP_STYLE[what](s3io.Zip(numbers=dataset))
    with pytest.raises(s3io.ConfigError, match=r"mix\.get_batch.*of its parts"):
        AS_IF_MAP_STYLE[what](s3io.Mix([dataset]))


@pytest.mark.parametrize("loader", [torch_data.DataLoader, s3io.DataLoader])
@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("shuffle", True, r"with_options\(shuffle=True\)"),
        ("sampler", range(5), "RecordMapDataset"),
        ("batch_sampler", [[1, 2]], "RecordMapDataset"),
    ],
)
def test_a_loader_that_would_make_another_order_is_refused(path, loader, option, value, advice):
    dataset = open_set(path)
    with pytest.raises(s3io.ConfigError, match=rf"^{option}=.* in the DataLoader: .*{advice}"):
        loader(dataset, batch_size=None, **{option: value})


def test_a_loader_that_leaves_the_order_alone_is_not_refused(path):
    dataset = open_set(path)
    for loader in (
        torch_data.DataLoader(dataset, batch_size=None),
        torch_data.DataLoader(dataset, batch_size=None, shuffle=False, sampler=None),
    ):
        assert numbers_of(loader) == list(range(RECORDS))
    assert numbers_of(torch_data.DataLoader(dataset + dataset, batch_size=None)) == 2 * list(
        range(RECORDS)
    )


def test_it_is_what_it_is_to_everybody_else(path):
    dataset = open_set(path)
    kinds = (s3io.RecordDataset, torch_data.IterableDataset, torch_data.Dataset)
    for one in (dataset, pickle.loads(pickle.dumps(dataset)), dataset.subset(0, 10)):
        assert one.__class__ is type(one) is s3io.RecordDataset
        assert all(isinstance(one, kind) for kind in kinds)
        assert not isinstance(one, torch_data.Subset)


# ---- The map-style one.


def test_numbers_from_the_end_slices_and_masks_are_records(path):
    records = s3io.RecordMapDataset(open_set(path))
    everything = torch.arange(RECORDS)
    for index in (-1, 0, 7, -RECORDS, np.int64(-2), torch.tensor(5)):
        assert int(records[index]) == int(everything[index])
    slices = (slice(2, 5), slice(None, None, 7), slice(None, -90), slice(-3, None), slice(5, 2, -1))
    for index in (*slices, [-1, 3, -1], np.array([5, -5]), torch.tensor([1, -1])):
        expected = np.arange(RECORDS)[index]
        assert records[index].tolist() == expected.tolist()
    for mask in (np.arange(RECORDS) < 3, torch.arange(RECORDS) % 9 == 0, [True] * RECORDS):
        assert records[mask].tolist() == np.arange(RECORDS)[np.asarray(mask)].tolist()


@pytest.mark.parametrize("index", [RECORDS, -RECORDS - 1, [0, RECORDS], [True] * 3, [False]])
def test_numbers_that_do_not_exist_are_refused(path, index):
    records = s3io.RecordMapDataset(open_set(path))
    with pytest.raises(s3io.RangeError, match=r"100"):
        records[index]


@pytest.mark.parametrize("index", ["3", 1.5, None, [1.5], [[1, 2]], [[True]]])
def test_what_is_no_number_is_refused(path, index):
    records = s3io.RecordMapDataset(open_set(path))
    with pytest.raises(s3io.ConfigError, match="integers"):
        records[index]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_torch_makes_of_it_reads_its_records(path, num_workers):
    records = s3io.RecordMapDataset(open_set(path))

    def read(part: Any, **options: Any) -> list[int]:
        return numbers_of(torch_data.DataLoader(part, num_workers=num_workers, **options))

    parts = torch_data.random_split(records, [0.8, 0.2])
    assert [len(part) for part in parts] == [80, 20]
    assert sorted(read(parts[0]) + read(parts[1], batch_size=None)) == list(range(RECORDS))
    assert read(torch_data.Subset(records, range(5, 15)), batch_size=4) == list(range(5, 15))
    both = torch_data.ConcatDataset([records, records])
    assert sorted(read(both, batch_size=16, shuffle=True)) == sorted(2 * list(range(RECORDS)))
    sampler = torch_data.WeightedRandomSampler([0.0] * 90 + [1.0] * 10, 50)
    assert set(read(records, batch_size=8, sampler=sampler)) <= set(range(90, 100))


# ---- Options that nobody has.

TYPOS = {
    "RecordDataset": (lambda d, p: s3io.RecordDataset(p, dtype="u1", batchsize=4), "batch_size"),
    "from_npy": (lambda d, p: s3io.RecordDataset.from_npy(p, as_type="i4"), "as_dtype"),
    "from_tokens": (lambda d, p: s3io.RecordDataset.from_tokens(p, window=2, strid=1), "stride"),
    "with_options": (lambda d, p: d.with_options(shufle=True), "shuffle"),
    "Mix": (lambda d, p: s3io.Mix([d], weight=[1]), "weights"),
    "Zip": (lambda d, p: s3io.Zip(a=d, transfrom=len), "transform"),
    "DataLoader": (lambda d, p: s3io.DataLoader(d, num_worker=2), "num_workers"),
    "DevicePrefetcher": (lambda d, p: s3io.DevicePrefetcher(d, "cpu", dept=2), "depth"),
    "RecordWriter": (lambda d, p: s3io.RecordWriter(p, dtype="u1", shard_size=4), "shard_bytes"),
    "FileStore": (lambda d, p: s3io.FileStore(engin="threads"), "engine"),
    "FileSystemConfig": (lambda d, p: s3io.FileSystemConfig(direct="off"), "direct_io"),
    "BufferPoolConfig": (lambda d, p: s3io.BufferPoolConfig(capcity=3), "capacity"),
    "RangeEngineConfig": (lambda d, p: s3io.RangeEngineConfig(chunksize=4096), "chunk_size"),
}


@pytest.mark.parametrize("kind", TYPOS)
def test_an_option_that_is_misspelt_is_told_the_right_one(path, kind):
    dataset = open_set(path)
    make, meant = TYPOS[kind]
    with pytest.raises((TypeError, s3io.ConfigError), match=f"{kind}.*did you mean '{meant}'"):
        make(dataset, path)


def test_an_option_of_the_other_side_is_told_where_it_belongs(path):
    dataset = open_set(path)
    with pytest.raises(TypeError, match="'num_workers': it is one of the DataLoader"):
        s3io.RecordDataset(path, dtype="u1", num_workers=2)
    with pytest.raises(TypeError, match="'num_workers': it is one of the DataLoader"):
        dataset.with_options(num_workers=2)
    with pytest.raises(TypeError, match="'window_blocks': it is one of the data set"):
        s3io.DataLoader(dataset, window_blocks=2)
    with pytest.raises(TypeError, match="'colour'; its options are folder, dtype, shape, shard"):
        s3io.RecordWriter(path.parent / "set", dtype="u1", colour="red")
    with pytest.raises(s3io.ConfigError, match=r"'labels' is neither.*ndarray.*RecordWriter"):
        s3io.Zip(images=dataset, labels=np.zeros(RECORDS))


@pytest.mark.parametrize("name", s3io.__all__)
def test_nothing_private_is_in_a_public_signature(name):
    kind = getattr(s3io, name)
    if not isinstance(kind, type) or issubclass(kind, BaseException):
        return
    members = [kind, *(value for _, value in inspect.getmembers(kind, callable))]
    for member in members:
        try:
            parameters = inspect.signature(member).parameters
        except (TypeError, ValueError):
            continue
        if not getattr(member, "__name__", "_").startswith("_") or member is kind:
            assert [one for one in parameters if one.startswith("_")] == [], member


@pytest.mark.parametrize("option", ["_faults", "faults", "_reads_on", "reads_on"])
def test_what_is_for_tests_and_benchmarks_is_no_option(path, option):
    dataset = open_set(path)
    with pytest.raises(TypeError, match=f"has no option '{option}'"):
        s3io.RecordDataset(path, dtype="u1", **{option: False})
    with pytest.raises(TypeError, match=f"has no option '{option}'"):
        dataset.with_options(**{option: False})
