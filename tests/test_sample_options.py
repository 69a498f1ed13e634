"""The options of SampleDataset: forms of fields, decoding, checksums, and all that it shares with
RecordDataset."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from sample_sets import Lengths
from support import QUICK_CONTEXTS, end_workers

import torch_s3io as s3io
from torch_s3io import ConfigError, DataError, RangeError, SampleDataset

FIELDS = {"text": bytes, "boxes": (np.float32, (None, 4)), "image": (np.uint8, (None, None, 3)),
          "number": np.int64}  # fmt: skip
COUNT = 40


def sample_of(number: int) -> dict:
    rows = number % 3
    return {
        "text": json.dumps({"n": number}).encode(),
        "boxes": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) + number,
        "image": np.full((number % 4, number % 5, 3), number, np.uint8),
        "number": number,
    }


@pytest.fixture
def folder(disk):
    with s3io.SampleWriter(disk / "set", fields=FIELDS, shard_bytes=1000) as writer:
        writer.write_batch([sample_of(number) for number in range(COUNT)])
    return disk / "set"


def read_in_a_worker(dataset: SampleDataset) -> None:
    batches = iter(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1))
    try:
        for _ in batches:
            pass
    finally:
        end_workers(batches)


# Forms of fields ---------------------------------------------------------------------------------


def test_fields_are_views_packed_or_padded_each_as_it_is_wanted(folder):
    forms = {"boxes": "padded", "image": "packed"}
    for batch in SampleDataset(folder, batch_size=7, ragged=forms):
        numbers = batch["number"].tolist()
        wanted = [sample_of(number) for number in numbers]
        assert not batch["text"].is_packed
        assert [bytes(text.tolist()) for text in batch["text"]] == [one["text"] for one in wanted]
        assert batch["image"].is_packed
        assert batch["image"].offsets[-1] == len(batch["image"].values)
        for image, one in zip(batch["image"], wanted, strict=True):
            np.testing.assert_array_equal(image.numpy(), one["image"])
        assert batch["boxes"].shape == (len(numbers), max(n % 3 for n in numbers), 4)
        for boxes, one in zip(batch["boxes"], wanted, strict=True):
            rows = len(one["boxes"])
            np.testing.assert_array_equal(boxes[:rows].numpy(), one["boxes"])
            assert not boxes[rows:].any()


def test_packed_samples_that_differ_in_their_first_axis_are_counted_in_its_items(folder):
    [batch] = SampleDataset(folder, batch_size=COUNT, ragged={"boxes": "packed"})
    boxes = batch["boxes"]
    assert boxes.shapes is None
    assert tuple(boxes.values.shape) == (sum(n % 3 for n in range(COUNT)), 4)
    assert boxes.lengths.tolist() == [n % 3 for n in range(COUNT)]
    assert (boxes.min_length, boxes.max_length) == (0, 2)
    assert boxes.cu_seqlens().dtype == torch.int32
    assert boxes.padded(-1.0).shape == (COUNT, 2, 4)
    with pytest.raises(ConfigError, match="'name': 'packed'"):
        next(iter(SampleDataset(folder)))["boxes"].padded()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ragged": "jagged"}, "'views', 'packed' or 'padded'"),
        ({"ragged": "padded"}, r"field 'image' is uint8 \[n, n, 3\], and only fields"),
        ({"ragged": {"image": "padded"}}, "'views' or 'packed' for it"),
        ({"ragged": {"number": "packed"}}, "those are: 'text', 'boxes', 'image'"),
        ({"decode": {"txt": json.loads}}, "there is no field 'txt'"),
        ({"decode": {"boxes": bytes}}, "only fields of bytes are decoded: a transform="),
        ({"decode": {"text": 5}}, "5 for field 'text' is no function"),
        ({"decode": json.loads}, "a dict of functions by field"),
        ({"decode": {"text": json.loads}, "ragged": {"text": "packed"}}, "leave it out of ragged="),
        ({"verify": 1}, "verify"),
        ({"batchsize": 3}, "did you mean 'batch_size'"),
        ({"header_bytes": 3}, "header_bytes"),
        ({"as_dtype": np.float32}, "as_dtype"),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_can(folder, options, text):
    with pytest.raises((ConfigError, TypeError), match=text):
        SampleDataset(folder, **options)


# Decoding ----------------------------------------------------------------------------------------


def test_decoded_fields_are_lists_of_what_the_functions_made(folder):
    for workers in (0, 1):
        dataset = SampleDataset(folder, batch_size=16, decode={"text": json.loads})
        loader = s3io.DataLoader(dataset, num_workers=workers, multiprocessing_context=None)
        seen = [text for batch in loader for text in batch["text"]]
        assert seen == [{"n": number} for number in range(COUNT)]
    samples = list(SampleDataset(folder, batch_size=None, decode={"text": json.loads}))
    assert [sample["text"] for sample in samples] == seen
    nothing = SampleDataset(folder, batch_size=COUNT, decode={"text": lambda text: None})
    assert next(iter(nothing))["text"] == [None] * COUNT


def stops(text: bytes):
    return next(iter(())) if b"13" in text else text


def fails(text: bytes):
    raise RuntimeError("not a picture")


@pytest.mark.parametrize(
    ("decode", "options", "text"),
    [
        (stops, {}, r"-0000.\.bin: sample 13: decode=\{'text': ...\}: 9 bytes.*StopIteration"),
        (stops, {"return_index": True, "shuffle": True}, r"00.\.bin: sample 13: .* StopIteration"),
        (fails, {}, r"decode=\{'text': ...\}.*8 bytes.*RuntimeError: not a picture"),
        (lambda text: json.loads(text + b"}"), {}, "JSONDecodeError"),
    ],
)
def test_a_sample_that_cannot_be_decoded_is_an_error_that_says_which(folder, decode, options, text):
    dataset = SampleDataset(folder, batch_size=COUNT, decode={"text": decode}, **options)
    with pytest.raises(DataError, match=text):
        list(dataset)
    with pytest.raises(DataError, match=text):
        read_in_a_worker(dataset)


# Checksums ---------------------------------------------------------------------------------------


def flip(path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 64]))


@pytest.mark.parametrize("place", ["fixed", "ragged", "twice", "last"])
def test_verify_finds_a_byte_that_is_another_one(disk, engine, place):
    samples = Lengths(disk / "set", [500] * 20, align_samples=4096)
    [path] = samples.folder.glob("*.bin")
    offset = {"fixed": 3, "ragged": 8 + 70, "twice": 8 + 70, "last": 8 + 499}[place]
    flip(path, 7 * 4096 + offset)
    dataset = SampleDataset(samples.folder, batch_size=5, verify=True, engine=engine)
    numbers = []
    with pytest.raises(DataError) as caught:  # noqa: PT012
        if place == "twice":
            assert samples.check(dataset.get_batch([6, 8])) == [6, 8]
            dataset.get_batch([6, 7, 7, 8])
        for batch in dataset:
            numbers += samples.check(batch)
    batch = None
    assert numbers == ([] if place == "twice" else [0, 1, 2, 3, 4])
    text = str(caught.value)
    assert f"{path}: sample 7, 508 bytes at byte 28672, is not what was written" in text
    assert "its checksum is another one. Restore the file" in text
    with pytest.raises(DataError, match="sample 7"):
        read_in_a_worker(dataset)
    assert dataset.stats()["pool_in_use"] == 0
    unchecked = SampleDataset(samples.folder, batch_size=5)
    assert sum(len(batch["number"]) for batch in unchecked) == 20


def test_verify_does_not_mind_what_lies_between_samples(disk):
    samples = Lengths(disk / "set", [500] * 20, align_samples=4096)
    [path] = samples.folder.glob("*.bin")
    flip(path, 7 * 4096 + 508)
    flip(path, 8 * 4096 - 1)
    dataset = SampleDataset(samples.folder, batch_size=5, verify=True, shuffle=True)
    assert sorted(samples.check_all(dataset)) == list(range(20))


# As of RecordDataset -----------------------------------------------------------------------------


def with_position(batch, index, epoch):
    return {**batch, "index": index, "epoch": epoch}


def test_transforms_indices_positions_and_epochs_are_those_of_records(folder):
    dataset = SampleDataset(
        folder, batch_size=8, shuffle=True, seed=3, transform=with_position, pass_position=True,
        return_index=True,
    )  # fmt: skip
    orders = []
    for epoch in dataset.epochs(3):
        first, index = dataset.peek()
        order = []
        for batch, index in dataset:
            if not order:
                assert index.tolist() == first["number"].tolist()
            assert batch["number"].tolist() == index.tolist() == batch["index"].tolist()
            assert batch["epoch"] == epoch
            order += index.tolist()
        assert sorted(order) == list(range(COUNT))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    dataset.set_epoch(1)
    assert [n for _, index in dataset for n in index.tolist()] == orders[1]
    batch, index = dataset.get_batch(torch.tensor([5, 5, 3]))
    assert batch["number"].tolist() == index.tolist() == [5, 5, 3]
    with pytest.raises(RangeError, match="record 40 does not exist"):
        dataset.get_batch([40])


def test_views_of_samples_are_samples(folder):
    dataset = SampleDataset(folder, batch_size=8, shuffle=True)
    numbers = [n for batch in dataset.subset(10, 30) for n in batch["number"].tolist()]
    assert sorted(numbers) == list(range(10, 30))
    train, test = dataset.split([0.75, 0.25])
    parts = [[n for batch in part for n in batch["number"].tolist()] for part in (train, test)]
    assert sorted(parts[0] + parts[1]) == list(range(COUNT))
    assert [len(part) for part in parts] == [30, 10]
    one = test.with_options(batch_size=None, shuffle=False)
    assert sorted(int(sample["number"]) for sample in one) == sorted(parts[1])
    assert type(one) is SampleDataset


def test_by_number_with_any_sampler(folder):
    records = s3io.RecordMapDataset(SampleDataset(folder, decode={"text": json.loads}))
    assert len(records) == COUNT
    assert records[-1]["text"] == {"n": COUNT - 1}
    assert records[3:5]["number"].tolist() == [3, 4]
    mask = np.arange(COUNT) % 10 == 0
    assert records[mask]["text"] == [{"n": n} for n in (0, 10, 20, 30)]
    sampler = torch.utils.data.BatchSampler(range(0, COUNT, 2), 6, drop_last=False)
    loader = torch.utils.data.DataLoader(records, sampler=sampler, batch_size=None)
    assert [n for batch in loader for n in batch["number"].tolist()] == list(range(0, COUNT, 2))
    lists = torch.utils.data.DataLoader(records, batch_size=5, collate_fn=list)
    assert [int(one["number"]) for batch in lists for one in batch] == list(range(COUNT))


def test_mixed_samples_come_from_all_parts(folder, disk):
    with s3io.SampleWriter(disk / "other", fields=FIELDS) as writer:
        writer.write_batch([sample_of(number) for number in range(100, 120)])
    other = SampleDataset(disk / "other", shuffle=True)
    dataset = SampleDataset(folder, shuffle=True)
    mix = s3io.Mix([dataset, other], weights=[1, 1], num_records=40, batch_size=8)
    numbers = [n for batch in mix for n in batch["number"].tolist()]
    assert 10 < sum(number >= 100 for number in numbers) < 30
    assert mix.get_batch([0, 40])["number"].tolist() == [0, 100]
    for changed in ({"ragged": {"text": "packed"}}, {"decode": {"text": json.loads}}):
        with pytest.raises(ConfigError, match=r"part 1 is.*the same ragged=, decode= and"):
            s3io.Mix([dataset, SampleDataset(disk / "other", **changed)])
    np.arange(COUNT, dtype="u1").tofile(disk / "records.bin")
    records = s3io.RecordDataset(disk / "records.bin", dtype="u1")
    with pytest.raises(ConfigError, match="part 1 is"):
        s3io.Mix([dataset, records])
    pairs = s3io.Zip(samples=dataset, records=records, batch_size=8)
    for batch in pairs:
        assert batch["samples"]["number"].tolist() == batch["records"].tolist()


@pytest.mark.parametrize("paths", ["missing", "empty", "records", "file", "mixed", "other fields"])
def test_what_is_no_folder_of_samples_is_refused_with_what_it_is(folder, disk, paths):
    os.mkdir(disk / "empty")
    (disk / "file").write_bytes(bytes(100))
    with s3io.RecordWriter(disk / "records", dtype="u1") as writer:
        writer.write(np.arange(9, dtype="u1"))
    with s3io.SampleWriter(disk / "other", fields={"x": bytes}) as writer:
        writer.write({"x": b"1"})
    said = {
        "missing": "missing",
        "empty": "is no folder with a manifest.json",
        "file": "is no folder with a manifest.json",
        "records": "RecordDataset reads it",
        "mixed": "RecordDataset reads it",
        "other fields": r"other: has x: uint8 \[n\], but .*set has text: uint8 \[n\], boxes",
    }[paths]
    given = {"mixed": [folder, disk / "records"], "other fields": [folder, disk / "other"]}
    with pytest.raises((ConfigError, DataError, s3io.NotFoundError), match=said):
        SampleDataset(given.get(paths, disk / paths))
    with pytest.raises(DataError, match="SampleDataset"):
        s3io.RecordDataset(folder)


@pytest.mark.parametrize("context", [None, *QUICK_CONTEXTS])
def test_torchs_own_loaders_and_the_prefetcher_take_samples(folder, context):
    workers = {"num_workers": 2, "multiprocessing_context": context} if context else {}
    dataset = SampleDataset(folder, batch_size=6, shuffle=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, **workers)
    for batches in (loader, s3io.DevicePrefetcher(loader, "cpu")):
        numbers = [n for batch in batches for n in batch["number"].tolist()]
        assert sorted(numbers) == list(range(COUNT))
