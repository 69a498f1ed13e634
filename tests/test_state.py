"""States: small, for JSON, refused where they do not fit, from hostile hands too."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from order_check import in_worker, numbers, order_of_epoch, steps_of, write_numbers
from states import SETTING, state_after

import torch_s3io as s3io


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def test_a_state_is_small_and_survives_json(path):
    state = state_after(path, 5)
    text = json.dumps(state)
    assert len(text) < 1000
    assert json.loads(text) == state
    assert (state["version"], state["epoch"], state["consumed"]) == (1, 0, 20)
    assert state["order"] == {"shuffle": True, "seed": 3}


def test_loading_gives_the_state_back_and_again(path):
    state = state_after(path, 5)
    for _ in range(2):
        dataset = SETTING.dataset(path)
        dataset.load_state_dict(state)
        assert dataset.state_dict() == state
        state = dataset.state_dict()
    expected = [step[0] for step in steps_of(order_of_epoch(path, SETTING, 0), 20, SETTING)]
    assert numbers(dataset) == expected


def test_the_last_state_before_an_error_stays_good_and_later_ones_are_refused(path):
    lost = 3

    def fail_once(rows: Any) -> Any:
        nonlocal lost
        lost -= 1
        if lost == 0:
            raise RuntimeError("this batch only")
        return rows

    dataset = SETTING.dataset(path).with_options(transform=fail_once)
    batches = iter(dataset)
    received = [next(batches)[1].tolist(), next(batches)[1].tolist()]
    with pytest.raises(RuntimeError, match="this batch only"):
        next(batches)
    state = dataset.state_dict()
    assert state["consumed"] == sum(map(len, received))
    next(batches)
    with pytest.raises(s3io.DataError, match="lost a batch"):
        dataset.state_dict()
    resumed = SETTING.dataset(path)
    resumed.load_state_dict(state)
    assert received + numbers(resumed) == numbers(SETTING.dataset(path))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 4}, "seed=3 in the state and seed=4 here"),
        ({"shuffle": False}, "shuffle=True in the state and shuffle=False here"),
        ({"shuffle": "block"}, "shuffle=True in the state and shuffle='block' here"),
    ],
)
def test_another_order_is_refused_and_both_are_named(path, change, text):
    state = state_after(path, 5)
    dataset = SETTING.dataset(path).with_options(**change)
    with pytest.raises(s3io.ConfigError, match=text):
        dataset.load_state_dict(state)


def test_another_size_of_blocks_is_refused(path):
    blocks = SETTING.dataset(path).with_options(shuffle="block", block_records=4)
    other = SETTING.dataset(path).with_options(shuffle="block", block_records=8)
    with pytest.raises(s3io.ConfigError, match="block_records=4 in the state"):
        other.load_state_dict(blocks.state_dict())


def test_other_windows_are_refused(path):
    options = {"shuffle": "block", "block_records": 4}
    windows = SETTING.dataset(path).with_options(**options, window_blocks=3)
    other = SETTING.dataset(path).with_options(**options)
    with pytest.raises(
        s3io.ConfigError, match="window_blocks=3 in the state and window_blocks=1 here"
    ):
        other.load_state_dict(windows.state_dict())


def test_integers_of_numpy_make_the_same_state(path):
    plain = {"batch_size": 4, "seed": 3, "block_records": 4, "rank": 0, "world_size": 2}
    plain["window_blocks"] = 2
    of_numpy = {name: np.int64(value) for name, value in plain.items()} | {"seed": np.uint64(3)}
    states = []
    for options in (plain, of_numpy):
        dataset = SETTING.dataset(path).with_options(shuffle="block", depth=np.int8(8), **options)
        states.append(json.dumps(dataset.state_dict()))
        dataset.load_state_dict(json.loads(states[0]))
    assert states[0] == states[1]


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def touch_later(path: Path) -> None:
    os.utime(path, ns=(2, 2))


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(16))


def test_a_file_of_another_size_is_refused_and_both_sizes_are_named(path):
    state = state_after(path, 5)
    append(path)
    with pytest.raises(s3io.DataError, match=r"their total size \(960 then, 976 now\)"):
        SETTING.dataset(path).load_state_dict(state)


def test_other_times_are_warned_of_once_and_refused_where_that_is_asked_for(path):
    state = state_after(path, 5)
    touch(path)
    rest = numbers(SETTING.dataset(path))[5:]

    def loads(strict: bool | None, strict_identity: bool = False) -> None:
        dataset = SETTING.dataset(path).with_options(strict_identity=strict_identity)
        with pytest.warns(RuntimeWarning, match=r"differs .* times of change .*strict=True"):
            dataset.load_state_dict(state, strict=strict)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset.load_state_dict(state, strict=strict)
        assert numbers(dataset) == rest

    def is_refused(strict: bool | None, strict_identity: bool = False) -> None:
        dataset = SETTING.dataset(path).with_options(strict_identity=strict_identity)
        with pytest.raises(s3io.DataError, match=r"times of change of files; .*strict=False"):
            dataset.load_state_dict(state, strict=strict)

    loads(None)
    loads(False)
    loads(False, strict_identity=True)
    is_refused(True)
    is_refused(None, strict_identity=True)


def test_of_several_workers_one_warns_of_other_times(path):
    dataset = SETTING.dataset(path)
    with in_worker(dataset, 0, 2):
        iter(dataset)
        state = dataset.state_dict()
    touch(path)
    for worker, warned in ((0, 1), (1, 0)):
        dataset = SETTING.dataset(path)
        with in_worker(dataset, worker, 2), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dataset.load_state_dict({**state, "worker": worker})
        assert len(caught) == warned
        dataset = dataset.with_options(strict_identity=True)
        with in_worker(dataset, worker, 2), pytest.raises(s3io.DataError, match="times of change"):
            dataset.load_state_dict({**state, "worker": worker})


SOURCES = {
    "files": ["job/0.bin", "job/1.bin", "static/2.bin"],
    "patterns": ["job/*.bin", "static/*.bin"],
    "folders below": ["job/*/*.bin", "static/2.bin"],
}


@pytest.mark.parametrize("kind", [*SOURCES, "zip", "mix"])
def test_each_source_may_be_copied_to_another_place(tmp_path, monkeypatch, kind):
    below = "a/" if kind == "folders below" else ""
    for number, name in enumerate([f"job/{below}0.bin", f"job/{below}1.bin", "static/2.bin"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.arange(number * 20, number * 20 + 20, dtype=np.int64).tofile(tmp_path / name)

    def make(job: Path) -> Any:
        paths = [
            str(job / source[4:] if source.startswith("job/") else tmp_path / source)
            for source in SOURCES.get(kind, SOURCES["files"])
        ]
        options: dict[str, Any] = {"dtype": np.int64, "batch_size": 4, "pool": None, "seed": 3}
        if kind in SOURCES:
            return s3io.RecordDataset(paths, shuffle=True, **options)
        parts = [s3io.RecordDataset(part, shuffle=True, **options) for part in paths]
        if kind == "mix":
            return s3io.Mix(parts)
        return s3io.Zip(one=parts[0], two=parts[1], three=parts[2])

    def read(batches: Any) -> list[Any]:
        rows = [batch.values() if isinstance(batch, dict) else [batch] for batch in batches]
        return [[part.tolist() for part in parts] for parts in rows]

    dataset = make(tmp_path / "job")
    whole = read(make(tmp_path / "job"))
    assert read(itertools.islice(iter(dataset), 2)) == whole[:2]
    state = json.loads(json.dumps(dataset.state_dict()))
    copy = Path(shutil.copytree(tmp_path / "job", tmp_path / "scratch" / "other job" / "data"))
    for file in copy.rglob("*.bin"):
        touch(file)
    resumed = make(copy)
    with pytest.raises(s3io.DataError, match="times of change of files"):
        resumed.load_state_dict(state, strict=True)
    with pytest.warns(RuntimeWarning, match=r"times of change of files.*: the files are taken"):
        resumed.load_state_dict(state)
    assert read(resumed) == whole[2:]

    same_times = Path(shutil.copytree(tmp_path / "job", tmp_path / "moved"))  # keeps the times
    resumed = make(same_times)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.load_state_dict(state, strict=True)
    assert read(resumed) == whole[2:]


def test_another_name_is_other_data(path, tmp_path):
    state = state_after(path, 5)
    renamed = SETTING.dataset(path.rename(tmp_path / "other.bin"))
    with pytest.raises(s3io.DataError, match="names or order of the files"):
        renamed.load_state_dict(state, strict=False)


def make_files(folders: list[Path]) -> None:
    for folder in folders:
        folder.mkdir(parents=True)
        touch(write_numbers(folder / "part.bin", 20))


def parts_of(folders: list[Path]) -> s3io.RecordDataset:
    paths = [folder / "part.bin" for folder in folders]
    return s3io.RecordDataset(paths, dtype=np.int64, shape=2, batch_size=4, pool=None)


def test_files_of_one_name_may_be_in_another_order_which_is_warned_of(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    make_files(folders)
    state = parts_of(folders).state_dict()
    parts_of(folders).load_state_dict(state, strict=True)
    other = parts_of(folders[::-1])
    with pytest.warns(RuntimeWarning, match="folders of files that have the same name"):
        other.load_state_dict(state)
    with pytest.raises(s3io.DataError, match="may be in another order"):
        other.load_state_dict(state, strict=True)


def of_version_1(state: dict[str, Any], *names: str) -> dict[str, Any]:
    """The state as it was when names were relative to the folder that holds all files."""
    digest = hashlib.blake2b(digest_size=12)
    for name in names:
        digest.update(json.dumps(name).encode() + b"\n")
    added = ("version", "repeated", "folders")
    data = {key: value for key, value in state["data"].items() if key not in added}
    return {**state, "data": {**data, "names": digest.hexdigest()}}


def test_states_of_the_first_version_are_still_read(tmp_path):
    folders = [tmp_path / "top" / name for name in "ab"]
    make_files(folders)
    state = of_version_1(parts_of(folders).state_dict(), "a/part.bin", "b/part.bin")
    parts_of(folders).load_state_dict(state, strict=True)
    moved = Path(shutil.copytree(tmp_path / "top", tmp_path / "elsewhere"))
    parts_of([moved / "a", moved / "b"]).load_state_dict(state, strict=True)
    for others in (folders[::-1], [folders[0], moved / "b"]):
        with pytest.raises(s3io.DataError, match="names or order of the files"):
            parts_of(others).load_state_dict(state)
    touch_later(folders[0] / "part.bin")
    with pytest.warns(RuntimeWarning, match=r"times of change of files.*: the files are taken"):
        parts_of(folders).load_state_dict(state)


def test_a_fingerprint_of_a_later_version_is_refused(path):
    state = state_after(path, 5)
    state["data"]["version"] = 3
    with pytest.raises(s3io.DataError, match=r"the version of this comparison \(3 then, 2 now\)"):
        SETTING.dataset(path).load_state_dict(state)


def test_another_layout_is_refused_but_as_dtype_does_not_matter(path):
    options: dict[str, Any] = {"batch_size": 4, "pool": None, "seed": 3, "shuffle": True}
    plain = s3io.RecordDataset(path, dtype=np.int64, shape=2, **options)
    other = s3io.RecordDataset(path, dtype=np.int32, shape=4, **options)
    with pytest.raises(s3io.DataError, match="layout of the records"):
        other.load_state_dict(plain.state_dict())
    floats = s3io.RecordDataset(path, dtype=np.int64, shape=2, as_dtype=np.float64, **options)
    floats.load_state_dict(plain.state_dict())


def test_a_view_is_not_its_data_set(path):
    dataset = SETTING.dataset(path)
    first, second = dataset.subset(0, 30), dataset.subset(30, 60)
    with pytest.raises(s3io.DataError, match="the subset, split or mixture"):
        second.load_state_dict(first.state_dict())
