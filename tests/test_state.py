"""States: small, for JSON, refused where they do not fit, from hostile hands too."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_check import Setting, in_worker, numbers, order_of_epoch, steps_of, write_numbers

import torch_s3io as s3io

SETTING = Setting(records=60, batch=4, seed=3, shuffle=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def state_after(path: Path, steps: int, setting: Setting = SETTING) -> dict[str, Any]:
    dataset = setting.dataset(path)
    numbers(itertools.islice(iter(dataset), steps))
    return dataset.state_dict()


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


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(16))


@pytest.mark.parametrize(
    ("change", "text"),
    [(touch, "times of change of files"), (append, r"their total size \(960 then, 976 now\)")],
)
def test_changed_files_are_refused_and_what_changed_is_named(path, change, text):
    state = state_after(path, 5)
    change(path)
    with pytest.raises(s3io.DataError, match=text):
        SETTING.dataset(path).load_state_dict(state)


def test_a_copy_of_the_data_needs_a_word_and_another_name_is_other_data(path, tmp_path):
    state = state_after(path, 5)
    (tmp_path / "copy").mkdir()
    copy = Path(shutil.copyfile(path, tmp_path / "copy" / path.name))
    dataset = SETTING.dataset(copy)
    with pytest.raises(s3io.DataError, match="strict=False"):
        dataset.load_state_dict(state)
    dataset.load_state_dict(state, strict=False)
    assert numbers(dataset) == numbers(SETTING.dataset(path))[5:]
    renamed = SETTING.dataset(copy.rename(tmp_path / "copy" / "other.bin"))
    with pytest.raises(s3io.DataError, match="names or order of the files"):
        renamed.load_state_dict(state, strict=False)


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


def changed(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**state, **changes}


BAD = ["3", 3.0, True, None, -1, float("nan"), 2**62, 10**5000, [], {}]


@pytest.mark.parametrize("key", ["version", "epoch", "consumed", "records"])
@pytest.mark.parametrize("value", BAD, ids=lambda value: type(value).__name__)
def test_a_count_that_is_none_is_refused(path, key, value):
    state = changed(state_after(path, 5), **{key: value})
    with pytest.raises(s3io.DataError, match=f"damaged state: '{key}'"):
        SETTING.dataset(path).load_state_dict(state)


@pytest.mark.parametrize("key", ["files", "bytes"])
def test_other_data_by_an_endless_number_is_refused(path, key):
    state = state_after(path, 5)
    state["data"][key] = 10**5000
    with pytest.raises(s3io.DataError, match="a int then"):
        SETTING.dataset(path).load_state_dict(state)


@pytest.mark.parametrize("key", ["version", "epoch", "consumed", "records", "order", "data"])
def test_a_missing_part_is_named(path, key):
    state = state_after(path, 5)
    del state[key]
    with pytest.raises(s3io.DataError, match=f"'{key}' is missing"):
        SETTING.dataset(path).load_state_dict(state)


@pytest.mark.parametrize("state", [None, 7, "{}", [], b"", [("version", 1)]])
def test_what_is_no_state_is_refused(path, state):
    with pytest.raises(s3io.DataError, match="no state of a data set"):
        SETTING.dataset(path).load_state_dict(state)


def test_other_versions_and_impossible_places_are_refused(path):
    state = state_after(path, 5)
    dataset = SETTING.dataset(path)
    with pytest.raises(s3io.ConfigError, match="version 2"):
        dataset.load_state_dict(changed(state, version=2))
    with pytest.raises(s3io.DataError, match="61 of 60 records"):
        dataset.load_state_dict(changed(state, consumed=61))
    with pytest.raises(s3io.DataError, match="has 60 per epoch"):
        dataset.load_state_dict(changed(state, records=61))
    with pytest.raises(s3io.ConfigError, match="strict must be"):
        dataset.load_state_dict(state, strict=1)  # type: ignore[arg-type]
    assert numbers(dataset) == numbers(SETTING.dataset(path))  # nothing of it was taken over


LAST_EPOCH = 2**48 - 1  # as far as `set_epoch` goes, whatever the order


@pytest.mark.parametrize("shuffle", [False, True, "block"])
def test_a_state_of_the_last_epoch_goes_on_and_one_beyond_it_is_refused(path, shuffle):
    dataset = SETTING.dataset(path).with_options(shuffle=shuffle)
    dataset.set_epoch(LAST_EPOCH)
    batches = iter(dataset)
    head = numbers(itertools.islice(batches, 5))
    state = dataset.state_dict()
    assert state["epoch"] == LAST_EPOCH
    tail = numbers(batches)
    dataset.load_state_dict(state)
    assert numbers(dataset) == tail
    assert sorted(itertools.chain(*head, *tail)) == list(range(60))

    with pytest.raises(s3io.DataError, match=f"epoch {LAST_EPOCH + 1}, and {LAST_EPOCH} is the l"):
        dataset.load_state_dict(changed(state, epoch=LAST_EPOCH + 1))
    with in_worker(dataset, 0, 2):
        iter(dataset)
        of_worker = dataset.state_dict()
        dataset.load_state_dict(changed(of_worker, epoch=LAST_EPOCH))
        with pytest.raises(s3io.DataError, match="is the last one there is"):
            dataset.load_state_dict(changed(of_worker, epoch=LAST_EPOCH + 1))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_epoch_comes_after_the_last_one(path, num_workers):
    loader = s3io.DataLoader(SETTING.dataset(path), num_workers=num_workers)
    loader.set_epoch(LAST_EPOCH)
    assert len(numbers(loader)) == 15
    state = loader.state_dict()
    for _ in range(2):
        with pytest.raises(s3io.ConfigError, match=f"epoch {LAST_EPOCH} is the last one"):
            next(iter(loader))
    loader.load_state_dict(state)  # its end, which is no beginning of another one
    with pytest.raises(s3io.ConfigError, match=r"set_epoch\(\) goes back"):
        next(iter(loader))
    loader.set_epoch(0)
    assert numbers(loader) == numbers(SETTING.dataset(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(data=st.data())
def test_hostile_states_are_clear_errors_or_mean_what_they_say(tmp_path_factory, data):
    path = write_numbers(tmp_path_factory.mktemp("numbers") / "numbers.bin", SETTING.records)
    state = json.loads(json.dumps(state_after(path, 5)))
    target = data.draw(st.sampled_from([state, state["order"], state["data"]]))
    for key in data.draw(st.lists(st.sampled_from(sorted(target)), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            target.pop(key, None)
        else:
            target[key] = data.draw(json_values)
    dataset = SETTING.dataset(path)
    try:
        dataset.load_state_dict(state)
    except (s3io.ConfigError, s3io.DataError):
        assert numbers(dataset) == numbers(SETTING.dataset(path))
    else:
        order = order_of_epoch(path, SETTING, state["epoch"])
        rest = [step[0] for step in steps_of(order, state["consumed"], SETTING)]
        assert numbers(dataset) == rest or not rest


def test_truncated_json_of_a_state_is_no_state(path):
    text = json.dumps(state_after(path, 5))
    dataset = SETTING.dataset(path)
    for length in range(0, len(text), 7):
        with pytest.raises((s3io.DataError, json.JSONDecodeError)):
            dataset.load_state_dict(json.loads(text[:length]))
