"""Parallel data sets: what belongs together comes together, resumed and from workers, too."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from order_check import (
    Setting,
    check_goes_on_elsewhere,
    check_read_and_resumed,
    check_shared_out_and_resumed,
    order_options,
    records_of,
    sent_to,
    together,
    write_numbers,
)
from support import worker_count

import torch_s3io as s3io

RECORDS = 90
SETTING = Setting(records=RECORDS, batch=4, seed=3)
SHUFFLED = replace(SETTING, shuffle=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", RECORDS)


def labels_of(folder: Path) -> Path:
    labels = folder / "labels.bin"
    if not labels.exists():
        (np.arange(RECORDS, dtype=np.int32) * 3).tofile(labels)
    return labels


def make_pairs(path: Path, **options: Any) -> s3io.Zip:
    others = {"pool": options.pop("pool", "auto"), "direct": "off"}
    images = s3io.RecordDataset(path, dtype=np.int64, shape=2, **others)
    labels = s3io.RecordDataset(labels_of(path.parent), dtype=np.int32, **others)
    settings = {"batch_size": 4, "shuffle": True, "seed": 3, "return_index": True}
    return s3io.Zip(images=images, labels=labels, **{**settings, **options})


def pairs(batches: Any) -> list[list[int]]:
    result = []
    for batch, index in batches:
        assert list(batch) == ["images", "labels"]
        np.testing.assert_array_equal(batch["images"][:, 0].numpy(), index.numpy())
        np.testing.assert_array_equal(batch["labels"].numpy(), index.numpy() * 3)
        result.append(index.tolist())
    return result


@pytest.mark.parametrize("shuffle", [False, True, "block", "windows"])
def test_parallel_records_come_together_in_one_order(path, shuffle):
    options = order_options(shuffle)
    zipped = make_pairs(path, **options)
    assert len(zipped) == 23
    records = list(itertools.chain(*pairs(zipped)))
    assert sorted(records) == list(range(RECORDS))
    if shuffle is True:
        assert records == records_of(SHUFFLED.dataset(path))
    check_read_and_resumed(lambda: make_pairs(path, **options), pairs, 23)


@pytest.mark.parametrize("shuffle", [False, True, "block", "windows"])
def test_parallel_records_are_shared_out_and_resumed_like_any_data_set(path, shuffle):
    def make(rank: int, world: int) -> s3io.Zip:
        options = {"rank": rank, "world_size": world, "pool": None}
        return make_pairs(path, **order_options(shuffle), **options)

    check_shared_out_and_resumed(make, pairs)


def test_parallel_records_go_on_under_other_ranks_with_other_workers(path):
    def make(rank: int, world: int, num_workers: int) -> s3io.DataLoader:
        return s3io.DataLoader(
            make_pairs(path, rank=rank, world_size=world), num_workers=num_workers
        )

    check_goes_on_elsewhere(make, pairs, together([pairs(make_pairs(path))]))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_parallel_records_come_from_workers_without_a_copy_and_resume(path, context):
    def make(num_workers: int) -> Any:
        return s3io.DataLoader(
            make_pairs(path),
            num_workers=num_workers,
            multiprocessing_context=context,
            persistent_workers=context == "spawn",
        )

    loader = make(worker_count(context))
    epochs = [pairs(loader), pairs(loader)]
    assert epochs == [pairs(make_pairs(path)), pairs(sent_to(make_pairs(path), 1))]
    stats = loader.stats()
    assert stats["received_tensors"] == 2 * 23 * 3
    assert stats["unmapped_tensors"] == stats["stale_tensors"] == 0
    head = pairs(itertools.islice(iter(loader), 7))
    other = make(1)
    other.load_state_dict(loader.state_dict())
    assert head + pairs(other) == pairs(sent_to(make_pairs(path), 2))


def test_views_and_samples_and_transforms_are_zipped_too(path):
    images = SETTING.dataset(path).subset(10, 20).with_options(transform=torch.neg)
    labels = SETTING.dataset(path).subset(30, 40)
    zipped = s3io.Zip(a=images, b=labels, batch_size=None, shuffle=True)
    seen = set()
    for batch in zipped:
        a, b = int(batch["a"][0]), int(batch["b"][0])
        assert b == -a + 20
        seen.add(b)
    assert seen == set(range(30, 40))

    def check(batch: Any, index: Any, epoch: int) -> Any:
        assert batch["a"][:, 0].tolist() == (-index).tolist()
        return epoch

    zipped = s3io.Zip(a=images, b=labels, transform=check, pass_position=True)
    assert set(zipped) == {0}
    assert set(zipped) == {1}


def test_one_data_set_may_be_zipped_with_itself(path):
    dataset = SETTING.dataset(path).with_options(return_index=False)
    for batch, index in s3io.Zip(a=dataset, b=dataset, return_index=True):
        assert batch["a"][:, 0].tolist() == batch["b"][:, 0].tolist() == index.tolist()


def test_what_cannot_be_zipped_is_refused(path):
    dataset = SETTING.dataset(path)
    with pytest.raises(s3io.ConfigError, match="equally many"):
        s3io.Zip(a=dataset, b=dataset.subset(0, 5))
    with pytest.raises(s3io.ConfigError, match="by name"):
        s3io.Zip()
    with pytest.raises(s3io.ConfigError, match="'direct' is neither"):
        s3io.Zip(a=dataset, direct="off")
    with pytest.raises(s3io.ConfigError, match="b is "):
        s3io.Zip(a=dataset, b=s3io.Mix([dataset]))


def test_views_of_parallel_data_are_those_of_its_parts(path):
    zipped = make_pairs(path)
    for name in ("subset", "split", "with_options", "get_batch"):
        with pytest.raises(AttributeError, match=f"a Zip has no {name}: call it on its parts"):
            getattr(zipped, name)
    assert not hasattr(zipped, "split")


def test_a_state_of_parallel_data_names_the_part_that_changed(path):
    state = make_pairs(path).state_dict()
    with open(path.parent / "labels.bin", "r+b") as file:
        file.write(b"x")
    images = s3io.RecordDataset(path, dtype=np.int64, shape=2)
    labels = s3io.RecordDataset(path.parent / "labels.bin", dtype=np.int32)
    changed = s3io.Zip(images=images, labels=labels, batch_size=4, shuffle=True, seed=3)
    with pytest.raises(s3io.DataError, match="times of change of files in labels"):
        changed.load_state_dict(state, strict=True)
