"""Checkpoints of torch.distributed.checkpoint, by Writer and Reader."""

from __future__ import annotations

import gc
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

import torch_s3io as s3io
from torch_s3io.checkpoint import layout, reader, transfer
from torch_s3io.checkpoint.layout import Place


@pytest.fixture(autouse=True)
def without_logs() -> Iterator[None]:
    """DCP logs exceptions, which pytest keeps, and with them all that their frames hold."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def state_of(seed: int) -> dict[str, Any]:
    """One of everything: types, shapes, memory in any order, objects."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(40, 30, generator=generator)
    return {
        "plain": values.clone(),
        "half": values.bfloat16(),
        "bools": values > 0,
        "complex": torch.complex(values, values),
        "small": torch.tensor(seed),
        "empty": torch.empty(0, 3),
        "turned": values.clone().t(),
        "part": values.clone()[3:20, 5:9],
        "step": seed,
        "words": {"of": ["an", "object", seed]},
    }


def save(folder: Path, seed: int, **options: Any) -> dict[str, Any]:
    state = state_of(seed)
    dcp.save(state, storage_writer=s3io.checkpoint.Writer(folder, **options))
    return state


def load(folder: Path) -> dict[str, Any]:
    state = state_of(0)
    dcp.load(state, storage_reader=s3io.checkpoint.Reader(folder))
    return state


def check_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        else:
            assert value == other[name]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failure(of: CheckpointException) -> BaseException:
    """What a rank raised, of which DCP keeps the trace."""
    return of.failures[0][0]


def test_what_is_saved_is_loaded_into_the_same_memory(tmp_path: Path):
    saved = save(tmp_path / "step", 5)
    state = state_of(0)
    places = {key: value.data_ptr() for key, value in state.items() if hasattr(value, "data_ptr")}
    dcp.load(state, storage_reader=s3io.checkpoint.Reader(tmp_path / "step"))
    check_equal(state, saved)
    assert places == {key: state[key].data_ptr() for key in places}
    assert [name[:4] for name in names_in(tmp_path / "step")] == [".met", "__0_"]


def test_a_checkpoint_is_replaced_only_where_that_is_asked_for(tmp_path: Path):
    saved = save(tmp_path, 1)
    before = names_in(tmp_path)
    with pytest.raises(CheckpointException) as refused:
        save(tmp_path, 2)
    assert isinstance(failure(refused.value), s3io.ConfigError)
    assert names_in(tmp_path) == before
    check_equal(load(tmp_path), saved)
    saved = save(tmp_path, 2, overwrite=True)
    assert len(names_in(tmp_path)) == 2
    assert names_in(tmp_path) != before
    check_equal(load(tmp_path), saved)


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: Any):
    saved = save(tmp_path, 1)

    def fail(*_: object, **_options: object) -> None:
        raise s3io.NoSpaceError("the disk is full")

    for name in ("writer", "put"):  # in the data, and in the metadata
        with monkeypatch.context() as patch:
            patch.setattr(s3io.FileStore, name, fail)
            with pytest.raises(CheckpointException) as failed:
                save(tmp_path, 2, overwrite=True)
        assert isinstance(failure(failed.value), s3io.NoSpaceError)
        check_equal(load(tmp_path), saved)
    left = set(names_in(tmp_path)) - {".metadata"}
    saved = save(tmp_path, 3, overwrite=True)
    check_equal(load(tmp_path), saved)
    assert len(left - set(names_in(tmp_path))) == 1  # the old one's: others may be at work


def test_of_two_saves_at_once_one_fails_and_the_other_is_whole(tmp_path: Path):
    first, second = ({"w": torch.full((100,), float(number))} for number in (1, 2))

    class Late(s3io.checkpoint.Writer):
        def write_data(self, *args: Any) -> Any:
            done = super().write_data(*args)
            dcp.save(second, storage_writer=s3io.checkpoint.Writer(tmp_path))
            return done

    with pytest.raises(CheckpointException) as failed:
        dcp.save(first, storage_writer=Late(tmp_path))
    assert isinstance(failure(failed.value), s3io.ConfigError)
    loaded = {"w": torch.zeros(100)}
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(tmp_path))
    check_equal(loaded, second)


def test_of_two_that_complete_at_once_the_second_fails(tmp_path: Path, monkeypatch: Any):
    put = s3io.FileStore.put

    def put_late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(s3io.FileStore, "put", put)
        save(tmp_path, 1)
        return put(*arguments, **options)

    monkeypatch.setattr(s3io.FileStore, "put", put_late)
    with pytest.raises(CheckpointException, match="ExistsError"):
        save(tmp_path, 2)
    loaded = state_of(3)
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(tmp_path))
    assert loaded["step"] == 1


def test_a_file_system_that_can_only_replace_takes_a_save_all_the_same(
    tmp_path: Path, monkeypatch: Any
):
    put = s3io.FileStore.put

    def put_or_replace(*arguments: Any, if_absent: bool = False) -> Any:
        if if_absent:
            raise s3io.ConfigError("x: its file system cannot; leave if_absent out")
        return put(*arguments)

    monkeypatch.setattr(s3io.FileStore, "put", put_or_replace)
    with pytest.warns(RuntimeWarning, match=r"\.metadata: its file system can only replace files"):
        save(tmp_path, 1)
    loaded = state_of(3)
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(tmp_path))
    assert loaded["step"] == 1
    with pytest.raises(CheckpointException, match="checkpoint"):
        save(tmp_path, 2)


def test_two_that_overwrite_at_once_leave_one_that_is_whole(tmp_path: Path):
    save(tmp_path, 1)
    second = {"w": torch.full((100,), 2.0)}

    class Late(s3io.checkpoint.Writer):
        def write_data(self, *args: Any) -> Any:
            done = super().write_data(*args)
            dcp.save(second, storage_writer=s3io.checkpoint.Writer(tmp_path, overwrite=True))
            return done

    first = {"w": torch.full((100,), 1.0)}
    dcp.save(first, storage_writer=Late(tmp_path, overwrite=True))
    loaded = {"w": torch.zeros(100)}
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(tmp_path))
    check_equal(loaded, first)


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: Any):
    """A tensor that is sharded in another way: parts of rows, and of columns."""
    whole = torch.arange(6000.0).reshape(60, 100)
    dcp.save({"w": whole}, storage_writer=s3io.checkpoint.Writer(tmp_path))
    loads = s3io.checkpoint.Reader(tmp_path)
    metadata = loads.read_metadata()
    loads.set_up_storage_reader(metadata, True)
    (index,) = metadata.storage_data
    asked: list[int] = []
    get_range = s3io.FileStore.get_range

    def counted(self: Any, path: Any, offset: int, length: int, **options: Any) -> torch.Tensor:
        asked.append(length)
        return get_range(self, path, offset, length, **options)

    monkeypatch.setattr(s3io.FileStore, "get_range", counted)

    class Planner:
        def resolve_tensor(self, item: Any) -> torch.Tensor:
            return self.target

        def commit_tensor(self, item: Any, tensor: torch.Tensor) -> None:
            assert tensor is not None

    for rows, columns in ((slice(10, 25), slice(0, 100)), (slice(7, 9), slice(20, 50))):
        expected, planner = whole[rows, columns], Planner()
        planner.target = torch.zeros(expected.shape, dtype=torch.float64)  # another type, too
        item = dcp.planner.ReadItem(
            dcp.planner.LoadItemType.TENSOR,
            dest_index=index,
            dest_offsets=torch.Size([0, 0]),
            storage_index=index,
            storage_offsets=torch.Size([rows.start, columns.start]),
            lengths=torch.Size(expected.shape),
        )
        loads.read_data(dcp.planner.LoadPlan([item]), planner).wait()
        assert torch.equal(planner.target, expected.double())
        assert asked.pop() == len(expected) * 400
        assert not asked


def change_place(folder: Path, name: str, **changes: Any) -> None:
    path = folder / layout.METADATA_NAME
    metadata = layout.read_metadata(path.read_bytes(), str(path))
    for index, place in metadata.storage_data.items():
        if index.fqn == name:
            metadata.storage_data[index] = Place(**{**vars(place), **changes})
    path.write_bytes(pickle.dumps(metadata))


def test_damage_is_an_error_that_names_the_file(tmp_path: Path):
    saved = save(tmp_path, 4)
    metadata = (tmp_path / layout.METADATA_NAME).read_bytes()

    def refused(text: str) -> None:
        with pytest.raises(CheckpointException) as failed:
            load(tmp_path)
        assert text in str(failure(failed.value))
        assert str(tmp_path) in str(failure(failed.value))
        (tmp_path / layout.METADATA_NAME).write_bytes(metadata)
        del failed
        gc.collect()  # DCP's exceptions hold themselves, and with them the readers

    for changes in (
        {"file": "../../secret"},
        {"offset": -64},
        {"shape": (1 << 40, 1 << 40)},
        {"dtype": torch.float64},
        {"length": 3},
        {"crc32c": "0"},
        {"shape": None},
        {"shape": [40, 30]},
    ):
        change_place(tmp_path, "plain", **changes)
        refused("is no place of a tensor")
    for changes in (
        {"dtype": torch.int32},  # as long
        {"dtype": torch.bits1x8, "shape": (40, 120)},
    ):
        change_place(tmp_path, "plain", **changes)
        refused("'plain' is of torch.float32, and its bytes of")
    change_place(tmp_path, "plain", dtype=None)
    refused("is no tensor in this checkpoint")
    change_place(tmp_path, "plain", shape=(40, 10), length=1600)
    refused("has shape [40, 10]")
    change_place(tmp_path, "plain", offset=1 << 30)
    refused("beyond its end")
    for name, changes in (
        ("step", {"length": 1 << 38}),
        ("plain", {"shape": (40, 1 << 40), "length": 40 * 4 << 40}),
    ):
        change_place(tmp_path, name, **changes)
        refused("beyond its end")  # and no memory is asked for
    for name, value in (
        ("storage_meta", 3),
        ("state_dict_metadata", [1]),
        ("state_dict_metadata", {"plain": 3}),
    ):
        changed = layout.read_metadata(metadata, "")
        setattr(changed, name, value)
        (tmp_path / layout.METADATA_NAME).write_bytes(pickle.dumps(changed))
        refused(".metadata: it does not say w")
    (tmp_path / layout.METADATA_NAME).write_bytes(metadata[:100])
    refused("it is no metadata")
    (tmp_path / layout.METADATA_NAME).write_bytes(pickle.dumps(Path.home))
    refused("which is no part of a checkpoint's metadata")
    (tmp_path / layout.METADATA_NAME).unlink()
    refused("there is no checkpoint")
    check_equal(load(tmp_path), saved)
    data = next(tmp_path.glob("__0_*"))
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    refused("CRC-32C")
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    change_place(tmp_path, "step", crc32c=1)  # of an object
    refused("CRC-32C")


def test_tensors_that_wait_for_their_place_take_a_bounded_memory(tmp_path: Path, monkeypatch: Any):
    """Those of another type are read beside it; in as many steps as that needs."""
    saved = {f"w{number}": torch.full((100,), float(number)) for number in range(5)}
    dcp.save(saved, storage_writer=s3io.checkpoint.Writer(tmp_path))
    monkeypatch.setattr(reader, "_MOST_WAITING_BYTES", 800)  # two of them
    read_all, asked = reader.read_all, []

    def counted(store: Any, ranges: Any, versions: Any) -> None:
        ranges = list(ranges)
        asked.append(len(ranges))
        read_all(store, ranges, versions)

    monkeypatch.setattr(reader, "read_all", counted)
    loaded = {name: torch.zeros(100, dtype=torch.float64) for name in saved}
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(tmp_path))
    assert all(torch.equal(loaded[name], saved[name].double()) for name in saved)
    assert asked == [2, 2, 1]


def test_after_a_read_that_fails_none_is_begun(tmp_path: Path):
    paths = [str(tmp_path / str(number)) for number in range(50)]
    begun = []

    class Failing(s3io.FileStore):
        def get_range(self, path: Any, *_: Any, **__: Any) -> Any:
            begun.append(path)
            if path == paths[0]:
                raise s3io.ReadError("of this test")
            is_over.wait(60)

    is_over = threading.Event()
    ranges = [transfer.Range(path, 0, torch.zeros(1, dtype=torch.uint8)) for path in paths]
    timer = threading.Timer(1.0, is_over.set)  # those that are in the threads go on
    timer.start()
    with pytest.raises(s3io.ReadError, match="of this test"):
        transfer.read_all(Failing(), ranges, dict.fromkeys(paths))
    timer.join()
    assert len(begun) <= 6


def test_a_checkpoint_of_others_is_refused_with_the_reader_that_knows_it(tmp_path: Path):
    dcp.save({"w": torch.zeros(3)}, checkpoint_id=tmp_path)
    with pytest.raises(CheckpointException) as refused:
        dcp.load({"w": torch.ones(3)}, storage_reader=s3io.checkpoint.Reader(tmp_path))
    assert "FileSystemReader" in str(failure(refused.value))
