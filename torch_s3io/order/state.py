"""What a checkpoint says about the place in an epoch, and about the data that it was taken over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..format.records import Records
from ..wording import listed, short
from .teams import Position

VERSION = 1
_FINGERPRINT_VERSION = 2
_LARGEST = 1 << 62
_NUMBERS_AT_ONCE = 1 << 11
_LONGEST_TEXT = 60

State = dict[str, Any]
_ANOTHER = "; load another checkpoint"

_DESCRIPTIONS = {
    "version": "the version of this comparison",
    "files": "the number of files",
    "bytes": "their total size",
    "names": "names or order of the files",
    "sizes": "sizes of files",
    "times": "times of change of files",
    "layout": "the layout of the records (dtype, shape, header_bytes, window)",
    "contents": "what is in the files, by the checksums of their tables",
    "view": "the subset, split or mixture",
    "repeated": "how many files have a name that another one has",
    "folders": "folders of files that have the same name, which may be in another order",
}
_CHANGED_BY_COPYING = ("times", "folders")


def fingerprint(records: Records, view: Any) -> State:
    """Tells data sets apart: how many files and bytes, and digests of what they are.

    Names are relative to each source, so that any of them may be copied to another place.
    ``times`` and ``folders`` (names relative to the folder that holds all files) are what a copy
    changes; the rest is equal for equal data sets on any machine. ``folders`` only counts where
    names alone do not tell the files apart, which is what ``repeated`` says.

    Version 1 has none of ``version``, ``repeated`` and ``folders``; its names are our folders.
    """
    objects = records.objects
    contents = records.contents()
    return {
        "version": _FINGERPRINT_VERSION,
        "files": len(objects),
        "bytes": objects.total_bytes,
        "names": _digest_of_lines(objects.name_lines()),
        "sizes": _digest_of_lines(_number_lines(objects.versions["size_bytes"])),
        "times": _digest_of_lines(_number_lines(objects.versions["modified_ns"])),
        "layout": _digest(records.identity()),
        **({"contents": _digest(contents)} if contents else {}),
        "view": _digest([view]),
        "repeated": objects.repeated_names,
        "folders": _digest_of_lines(objects.folder_lines()),
    }


def _number_lines(column: np.ndarray[Any, Any]) -> Iterator[bytes]:
    for first in range(0, len(column), _NUMBERS_AT_ONCE):
        numbers = column[first : first + _NUMBERS_AT_ONCE].tolist()
        yield b"".join(b"%d\n" % number for number in numbers)


def _digest_of_lines(lines: Iterable[bytes]) -> str:
    """As ``_digest``, of nothing but texts and numbers, of which there may be millions."""
    digest = hashlib.blake2b(digest_size=12)
    for some in lines:
        digest.update(some)
    return digest.hexdigest()


def _digest(items: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for item in items:
        text = json.dumps(item, sort_keys=True, default=str)
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def summary(settings: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, str | bytes]:
    """What equal epochs over equal data agree on, whatever their files' times, by names for people.

    Each is a text where a short one says it, else a digest: small, whatever the number of files.
    """
    said: dict[str, str | bytes] = {}
    for name, value in settings.items():
        text = repr(value)
        said[name] = text if len(text) <= _LONGEST_TEXT else _digest([value]).encode()
    for name, value in _in_words(data).items():  # where texts are digests
        said[name] = repr(value) if isinstance(value, int) else value.encode()
    return said


def _in_words(data: Mapping[str, Any], part: str = "") -> State:
    """What a fingerprint says of the data wherever they lie, by what its entries are about; of
    data sets of several parts all in one."""
    if _has_parts(data):
        return {text: v for key in data for text, v in _in_words(data[key], f" in {key}").items()}
    left_out = {"version", "times", "repeated"} | (set() if data["repeated"] else {"folders"})
    return {_DESCRIPTIONS[key] + part: data[key] for key in data if key not in left_out}


def _has_parts(data: Mapping[str, Any]) -> bool:
    """Whether these are the fingerprints of the parts of a data set, by name."""
    return all(isinstance(value, Mapping) for value in data.values())


def make_state(epoch: int, consumed: int, records: int, order: State, data: State) -> State:
    return {
        "version": VERSION,
        "epoch": epoch,
        "consumed": consumed,
        "records": records,
        "order": deepcopy(order),
        "data": deepcopy(data),  # whoever changes the state does not change the data set
    }


def read_state(
    state: Any, records: int, order: Mapping[str, Any], data: Mapping[str, Any], strict: bool
) -> tuple[Position, str]:
    """The place that a state says which fits this data set; and what else its files have that a
    copy may change, in words.

    Args:
        strict: Whether files that differ as copies do, in their times of change, do not fit.

    Raises:
        DataError: Not a state, a damaged one, or one of other data.
        ConfigError: One of another version, or under other settings of the order.
    """
    version = integer(state, "version")
    if version != VERSION:
        raise ConfigError(
            f"this state has version {version}; this torch_s3io reads version {VERSION}: load it "
            "with the one that saved it"
        )
    epoch, consumed = integer(state, "epoch"), integer(state, "consumed")
    differs = _refuse_other_data(_mapping(state, "data"), data, strict)
    _refuse_other_order(_mapping(state, "order"), order)
    if integer(state, "records") != records or consumed > records:
        raise DataError(
            f"the state says {consumed} of {state['records']} records were consumed, but this data "
            f"set has {records} per epoch"
        )
    return Position(epoch, consumed), differs


def refuse_far_epoch(epoch: int, last: int) -> None:
    """Raises DataError for an epoch that no data set of these settings comes to."""
    if epoch > last:
        raise DataError(
            f"damaged state: epoch {epoch}, and {last} is the last one there is{_ANOTHER}"
        )


def _refuse_other_data(saved: Mapping[str, Any], here: Mapping[str, Any], strict: bool) -> str:
    """What differs as it may in a copy, in words."""
    wrong, copied = _differences(saved, here)
    if wrong:
        raise DataError(
            f"the state was saved over other data: what differs is {listed(wrong + copied)}; "
            "the records that are left cannot be told. Load it over the data that it is of, or "
            "begin "
            "without it"
        )
    if strict and copied:
        raise DataError(
            f"the state was saved over other data: what differs is {listed(copied)}; if this is "
            "a copy with the same content, load_state_dict(state, strict=False) takes it, and so "
            "does a data set without strict_identity=True"
        )
    return listed(copied)


def _differences(
    saved: Mapping[str, Any], here: Mapping[str, Any], part: str = ""
) -> tuple[list[str], list[str]]:
    """What tells the data apart, and what a copy may change, in words."""
    wrong: list[str] = []
    copied: list[str] = []
    has_parts = _has_parts(here)
    if not has_parts:
        here = _as_saved(here, saved)
    for key in [*here, *(key for key in saved if key not in here)]:
        ours, theirs = here.get(key), saved.get(key)
        if has_parts and isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            of_part = _differences(theirs, ours, f" in {key}")
            wrong += of_part[0]
            copied += of_part[1]
        elif not _equal(ours, theirs):
            text = _DESCRIPTIONS.get(key, short(key)) + part
            if isinstance(ours, int) and isinstance(theirs, int):
                text += f" ({short(theirs)} then, {short(ours)} now)"
            (copied if key in _CHANGED_BY_COPYING else wrong).append(text)
    return wrong, copied


def _as_saved(here: Mapping[str, Any], saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A fingerprint as the version that saved the other one makes it, but for what does not
    matter."""
    if "version" not in saved:
        newer = ("version", "repeated", "folders")
        return {k: v for k, v in here.items() if k not in newer} | {"names": here["folders"]}
    return here if here["repeated"] else {**here, "folders": saved.get("folders")}


def _refuse_other_order(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    differing = []
    for key in dict.fromkeys([*here, *saved]):
        then, now = saved.get(key), here.get(key)
        if not _equal(then, now):
            name = key if key in here else short(key)
            differing.append(
                f"{name}={short(then, _LONGEST_TEXT)} in the state and "
                f"{name}={short(now, _LONGEST_TEXT)} here"
            )
    if differing:
        raise ConfigError(
            f"another order: {listed(differing, '; ')}; the records that are left would be others. "
            "Make the data set with the settings of the state"
        )


def integer(state: Any, key: str) -> int:
    """Raises DataError where there is no count of that name."""
    value = _value(state, key)
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise DataError(f"damaged state: {key!r} is {short(value)}, no count{_ANOTHER}")
    return value


def _mapping(state: Any, key: str) -> Mapping[str, Any]:
    value = _value(state, key)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise DataError(f"damaged state: {key!r} is {short(value)}, no dict of settings{_ANOTHER}")
    return value


def _value(state: Any, key: str) -> Any:
    if not isinstance(state, Mapping):
        raise DataError(
            f"this is no state of a data set, but {short(state)}: give what state_dict() gave"
        )
    if key not in state:
        inner = [name for name, value in state.items() if _is_like_state(value)]
        if inner:
            raise DataError(
                f"this is a dict with a state in it, under {inner[0]!r}: load that one, as in "
                f"load_state_dict(checkpoint[{inner[0]!r}])"
            )
        raise DataError(f"damaged state, or none of a data set: {key!r} is missing{_ANOTHER}")
    return state[key]


def _is_like_state(value: Any) -> bool:
    return isinstance(value, Mapping) and {"version", "epoch", "consumed"} <= set(value)


def _equal(one: Any, other: Any) -> bool:
    """Of the same types and equal: True is not 1. Whatever cannot be compared is not equal."""
    try:
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(_equal, one, other))
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
        return type(one) is type(other) and bool(one == other)
    except Exception:
        return False
