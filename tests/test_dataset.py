"""RecordDataset against numpy: whatever files, settings and engine, the same records."""

from __future__ import annotations

import resource
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from support import ENGINES, make_cold, random_bytes, write_file

from torch_s3io import BufferPoolConfig, RecordDataset

MOST_BYTES = 3_000_000


@dataclass(frozen=True)
class Case:
    """Files and settings; ``write`` makes the files and says what the records are."""

    record_bytes: int
    header_bytes: int
    counts: list[int]
    batch_size: int | None
    drop_last: bool
    return_index: bool
    direct: str
    engine: str
    pool: object
    cold: bool

    def write(self, folder: Path) -> tuple[list[Path], np.ndarray]:
        paths, records = [], []
        for number, count in enumerate(self.counts):
            data = random_bytes(self.header_bytes + count * self.record_bytes, number)
            if count == 0 and number % 2:
                data = b""  # an empty file needs no header
            path = write_file(folder / f"{number:03}.bin", data)
            if self.cold and data:
                make_cold(path)
            paths.append(path)
            body = np.frombuffer(data, np.uint8)[self.header_bytes :]
            records.append(body.reshape(-1, self.record_bytes))
        return paths, np.concatenate(records)

    def dataset(self, paths: list[Path]) -> RecordDataset:
        return RecordDataset(
            paths,
            dtype=np.uint8,
            shape=(self.record_bytes,),
            batch_size=self.batch_size,
            header_bytes=self.header_bytes,
            drop_last=self.drop_last,
            return_index=self.return_index,
            direct=self.direct,
            engine=self.engine,
            pool=self.pool,
        )

    def expected_sizes(self, total: int) -> list[int]:
        if self.batch_size is None:
            return [1] * total
        full, rest = divmod(total, self.batch_size)
        return [self.batch_size] * full + ([rest] if rest and not self.drop_last else [])


@st.composite
def cases(draw) -> Case:
    record_bytes = draw(
        st.one_of(
            st.integers(1, 100_003),
            st.integers(1, 64),
            st.sampled_from([1, 511, 512, 513, 3073, 4096, 8192, 65536, 100_003]),
        )
    )
    most = max(1, min(40, MOST_BYTES // record_bytes // 4))
    counts = draw(
        st.lists(st.integers(0, most), min_size=1, max_size=5).filter(lambda counts: any(counts))
    )
    batch_size = draw(st.one_of(st.none(), st.integers(1, 17), st.just(1000)))
    header_bytes = draw(st.sampled_from([0, 0, 1, 64, 511, 512, 4096, 5000]))
    room = max(batch_size or 256, 256 if batch_size is None else 1) * (record_bytes + 3 * 4096)
    small = BufferPoolConfig(capacity=draw(st.integers(1, 5)), buffer_size=room + 65536)
    return Case(
        record_bytes=record_bytes,
        header_bytes=header_bytes,
        counts=counts,
        batch_size=batch_size,
        drop_last=draw(st.booleans()),
        return_index=draw(st.booleans()),
        direct=draw(st.sampled_from(["auto", "require", "off"])),
        engine=draw(st.sampled_from(ENGINES)),
        pool=draw(st.sampled_from(["auto", None, small])),
        cold=draw(st.booleans()),
    )


def check_epoch(case: Case, dataset: RecordDataset, records: np.ndarray) -> None:
    position = 0
    sizes = []
    for batch in dataset:
        rows, index = batch if case.return_index else (batch, None)
        if case.batch_size is None:
            assert rows.shape == (case.record_bytes,)
            rows = rows.unsqueeze(0)
            index = None if index is None else index.unsqueeze(0)
        count = len(rows)
        assert rows.dtype == torch.uint8
        np.testing.assert_array_equal(rows.numpy(), records[position : position + count])
        if index is not None:
            assert index.dtype == torch.int64
            assert index.tolist() == list(range(position, position + count))
        position += count
        sizes.append(count)
    assert sizes == case.expected_sizes(len(records))
    assert len(dataset) == len(sizes)


@settings(max_examples=120)
@given(case=cases())
def test_every_epoch_has_the_records_of_the_files_in_order(disk, case):
    event(f"{case.engine}, direct={case.direct}, pool={type(case.pool).__name__}")
    with tempfile.TemporaryDirectory(dir=disk) as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the batches that are still referenced")
        paths, records = case.write(Path(folder))
        dataset = case.dataset(paths)
        assert dataset.num_records == len(records)
        for _ in range(3):
            check_epoch(case, dataset, records)
        stats = dataset.stats()
        delivered = 3 * sum(case.expected_sizes(len(records))) * case.record_bytes
        assert stats["batch_bytes"] == delivered
        assert stats["converted_bytes"] == 0
        read = stats["direct_bytes"] + stats["cached_bytes"] + stats["buffered_bytes"]
        assert read >= delivered
        if len(case.counts) == 1 and stats["spilled_batches"] == 0:
            assert stats["copied_bytes"] == 0
        if case.direct == "require":
            assert stats["cached_bytes"] == stats["buffered_bytes"] == 0
        if case.direct == "off":
            assert stats["cached_bytes"] == stats["direct_bytes"] == 0
        # The next epoch's first batches are read already; breaking it off lets all buffers go.
        next(iter(dataset), None)
        assert dataset.stats()["pool_in_use"] == 0


def test_a_record_may_be_larger_than_one_read(disk, engine, direct):
    record_bytes = (5 << 20) + 12345
    data = random_bytes(3 * record_bytes)
    write_file(disk / "large.bin", data)
    dataset = RecordDataset(
        disk / "large.bin",
        dtype=np.uint8,
        shape=record_bytes,
        batch_size=2,
        engine=engine,
        direct=direct,
    )
    got = b"".join(batch.numpy().tobytes() for batch in dataset)
    assert got == data


def test_from_the_second_epoch_on_auto_reads_through_the_page_cache(disk):
    path = write_file(disk / "x.bin", random_bytes(1_000_000))
    make_cold(path)
    dataset = RecordDataset(path, dtype=np.uint8, shape=1000, batch_size=100)
    size = path.stat().st_size

    def read_epoch() -> dict[str, int]:
        before = dataset.stats()
        for _ in dataset:
            pass
        after = dataset.stats()
        keys = ("direct_bytes", "cached_bytes", "buffered_bytes")
        return {key: after[key] - before[key] for key in keys}

    first, second, third = read_epoch(), read_epoch(), read_epoch()
    assert first["direct_bytes"] >= size
    assert first["buffered_bytes"] == 0
    assert second["direct_bytes"] == third["direct_bytes"] == 0
    # Together: the third one's first batches are read while the second one's last are in use.
    later = (second, third)
    assert sum(one["cached_bytes"] + one["buffered_bytes"] for one in later) >= 2 * size


def test_one_record_per_file_needs_few_descriptors_at_once(disk, engine, direct):
    paths = [write_file(disk / f"{number}.bin", random_bytes(100, number)) for number in range(900)]
    for path in paths:
        make_cold(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        dataset = RecordDataset(
            paths, dtype="u1", shape=100, batch_size=32, engine=engine, direct=direct
        )
        got = b"".join(batch.numpy().tobytes() for batch in dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert got == b"".join(path.read_bytes() for path in paths)


def test_a_pattern_is_sorted_and_a_sequence_keeps_its_order(disk):
    for name in "cab":
        write_file(disk / f"{name}.bin", name.encode())
    by_pattern = RecordDataset(f"{disk}/*.bin", dtype="u1", batch_size=3)
    assert next(iter(by_pattern)).tolist() == list(b"abc")
    paths = [disk / "c.bin", str(disk / "a.bin"), disk / "c.bin"]
    by_sequence = RecordDataset(paths, dtype="u1", batch_size=3)
    assert next(iter(by_sequence)).tolist() == list(b"cac")


def test_a_file_whose_name_looks_like_a_pattern_is_found(disk):
    write_file(disk / "x[1].bin", b"ab")
    dataset = RecordDataset(disk / "x[1].bin", dtype="u1", batch_size=2)
    assert next(iter(dataset)).tolist() == list(b"ab")


def test_repr_names_records_files_fields_and_batch_size(disk):
    write_file(disk / "x.bin", bytes(120))
    dataset = RecordDataset(disk / "x.bin", dtype=np.float32, shape=(2, 3), batch_size=4)
    text = repr(dataset)
    for part in ("5 records", "24 bytes", "1 file", "float32[2, 3]", "batch_size=4"):
        assert part in text


@pytest.mark.parametrize("batch_size", [None, 3])
def test_transform_is_called_with_what_is_yielded(disk, batch_size):
    data = random_bytes(100)
    write_file(disk / "x.bin", data)
    dataset = RecordDataset(
        disk / "x.bin",
        dtype="u1",
        shape=10,
        batch_size=batch_size,
        transform=lambda rows: rows.to(torch.int16) + 1,
        return_index=True,
    )
    rows, index = zip(*dataset, strict=True)
    assert {row.ndim for row in rows} == {1 if batch_size is None else 2}
    stacked = torch.stack(rows) if batch_size is None else torch.cat(rows)
    expected = np.frombuffer(data, np.uint8).reshape(-1, 10).astype(np.int16) + 1
    np.testing.assert_array_equal(stacked.numpy(), expected)
    assert torch.stack(index).tolist() == list(range(10)) if batch_size is None else True


def test_a_look_at_the_first_batch_does_not_count_as_an_epoch(disk):
    path = write_file(disk / "x.bin", np.arange(100_000, dtype=np.uint8).tobytes())
    dataset = RecordDataset(path, dtype=np.uint8, batch_size=1000)
    for _ in range(3):
        next(iter(dataset))
    assert dataset.stats()["direct"] == "auto"
    for _ in range(2):
        assert len(list(dataset)) == 100
    assert dataset.stats()["direct"] == "off"


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_files_that_read_directly_after_all_stay_within_their_buffers(disk, engine, monkeypatch):
    """The file that was asked refused direct reads, the others do not."""
    arrays = [np.random.default_rng(seed).integers(0, 256, 7777, np.uint8) for seed in range(3)]
    for number, array in enumerate(arrays):
        write_file(disk / f"{number}.bin", array.tobytes())
    monkeypatch.setattr("torch_s3io._C.direct_alignment", lambda path, direct: 0)
    with pytest.warns(RuntimeWarning, match="refuses O_DIRECT"):
        dataset = RecordDataset(
            f"{disk}/*.bin", dtype=np.uint8, shape=7, batch_size=100, engine=engine
        )
    assert torch.cat(list(dataset)).flatten().tolist() == np.concatenate(arrays).tolist()
