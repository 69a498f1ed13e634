"""States that are none, or that cannot be gone on from: refused, and nothing is taken over."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_check import in_worker, numbers, order_of_epoch, steps_of, write_numbers
from states import SETTING, state_after

import torch_s3io as s3io


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


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
    with pytest.raises(s3io.DataError, match="more than 128 bits then"):
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
        dataset.load_state_dict(state, **{"strict": 1})
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


@pytest.mark.filterwarnings("ignore:what differs from the data")
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
