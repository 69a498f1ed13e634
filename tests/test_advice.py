"""Mistakes as people make them: each error names what to do next, for who has read no page of ours.

The words that are looked for are the way out: an option, a call, or a command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_s3io as s3io

MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {}


def mistake(advice: str) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Registers what somebody does in a folder, and a pattern that the error matches."""

    def register(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
        MISTAKES[function.__name__] = function, advice
        return function

    return register


def numbers(folder: Path, count: int = 100, name: str = "a.bin", **options: Any) -> Any:
    np.arange(count).tofile(folder / name)
    return s3io.RecordDataset(folder / name, dtype=np.int64, **options)


def writer(folder: Path, **options: Any) -> s3io.RecordWriter:
    return s3io.RecordWriter(folder / "set", **{"dtype": "f4", "shape": 3, **options})


def written(folder: Path) -> Path:
    with writer(folder) as one:
        one.write(np.zeros((5, 3), "f4"))
    return folder / "set"


# ---- Opening.


@mistake(r"dtype= is missing.*np\.float32.*from_npy")
def no_dtype(folder):
    (folder / "a.bin").write_bytes(bytes(8))
    s3io.RecordDataset(folder / "a.bin")


@mistake(r"is a folder.*from_npy.*reads its arrays")
def a_folder_of_arrays(folder):
    np.save(folder / "a.npy", np.zeros(3))
    s3io.RecordDataset(folder, dtype="f8")


@mistake(r"make a list")
def an_iterator_of_paths(folder):
    s3io.RecordDataset({folder / "a.bin"}, dtype="u1")


@mistake(r"paths is empty; name a file, a pattern or a folder")
def no_paths(folder):
    s3io.RecordDataset([], dtype="u1")


@mistake(r"remainder of 4: dtype, shape or header_bytes do not fit")
def another_dtype(folder):
    (folder / "a.bin").write_bytes(bytes(100))
    s3io.RecordDataset(folder / "a.bin", dtype="f8", shape=4)


@mistake(r"fewer than header_bytes=512; lower that, or leave the file out")
def a_header_longer_than_the_file(folder):
    (folder / "a.bin").write_bytes(bytes(100))
    s3io.RecordDataset(folder / "a.bin", dtype="u1", header_bytes=512)


@mistake(r"they are empty")
def empty_files(folder):
    (folder / "a.bin").touch()
    s3io.RecordDataset(folder / "a.bin", dtype="u1")


@mistake(r"such as \(3, 32, 32\)")
def a_shape_as_text(folder):
    numbers(folder)
    s3io.RecordDataset(folder / "a.bin", dtype="u1", shape="3,32,32")


@mistake(r"use transform= for it")
def a_conversion_that_loses(folder):
    numbers(folder, as_dtype=torch.int8)


@mistake(r"no multiple of the 4 bytes of a token: another dtype= may be meant")
def tokens_of_another_size(folder):
    (folder / "a.bin").write_bytes(bytes(101))
    s3io.RecordDataset.from_tokens(folder / "a.bin", window=3, dtype="uint32")


@mistake(r"lower window=")
def a_window_longer_than_all_files(folder):
    (folder / "a.bin").write_bytes(bytes(100))
    s3io.RecordDataset.from_tokens(folder / "a.bin", window=1025)


@mistake(r"manifest says .*leave them out")
def another_dtype_than_the_manifest(folder):
    s3io.RecordDataset(written(folder), dtype="u1")


@mistake(r"leave header_bytes= out")
def a_header_beside_a_manifest(folder):
    s3io.RecordDataset(written(folder), header_bytes=8)


@mistake(r"another program's; name the files of records, and say dtype=")
def the_manifest_of_a_web_page(folder):
    (folder / "manifest.json").write_text('{"name": "app"}')
    s3io.RecordDataset(folder)


@mistake(r"is damaged.*copy the data set again, or write it anew")
def a_manifest_that_was_cut(folder):
    path = written(folder) / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
    s3io.RecordDataset(path.parent)


@mistake(r"cut off or appended to; copy it again, or write the data set anew")
def a_shard_that_was_cut(folder):
    next(written(folder).glob("*.bin")).write_bytes(bytes(3))
    s3io.RecordDataset(folder / "set")


# ---- Arrays.


@mistake(r"\.npz file, save each array by numpy\.save")
def an_npz(folder):
    np.savez(folder / "a.npz", x=np.zeros(3))
    s3io.RecordDataset.from_npy(folder / "a.npz")


@mistake(r"save an array of numbers instead")
def an_array_of_objects(folder):
    np.save(folder / "a.npy", np.array([{}, None]), allow_pickle=True)
    s3io.RecordDataset.from_npy(folder / "a.npy")


@mistake(r"numpy\.ascontiguousarray")
def a_transposed_array(folder):
    np.save(folder / "a.npy", np.zeros((3, 4)).T)
    s3io.RecordDataset.from_npy(folder / "a.npy")


@mistake(r"cut off or appended to; save or copy it again")
def an_array_that_was_cut(folder):
    np.save(folder / "a.npy", np.zeros((30, 4)))
    (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-5])
    s3io.RecordDataset.from_npy(folder / "a.npy")


# ---- Parts, mixtures, pairs.


@mistake(r"subset\(start, stop\) takes numbers of records")
def a_split_by_numbers(folder):
    numbers(folder).split([80, 20])


@mistake(r"raise it, or leave that part out")
def a_split_that_is_none(folder):
    numbers(folder).split([0.999, 0.001])


@mistake(r"stop at most 100")
def a_subset_beyond_the_end(folder):
    numbers(folder).subset(0, 101)


@mistake(r"the data set has 100, from 0 on")
def a_record_beyond_the_end(folder):
    numbers(folder, pool=None).get_batch([100])


@mistake(r"as in \[7, 3\]|sequence of integers")
def records_by_fractions(folder):
    numbers(folder).get_batch([0.5])


@mistake(r"Mix\(\[web, books\]\)")
def a_mixture_of_nothing(folder):
    s3io.Mix([])


@mistake(r"as in weights=\[0\.9, 0\.1\]")
def a_weight_too_many(folder):
    s3io.Mix([numbers(folder)], weights=[0.5, 0.5])


@mistake(r"part\.with_options\(shuffle=")
def a_mixture_that_shuffles(folder):
    s3io.Mix([numbers(folder)], shuffle=True)


@mistake(r"one Mix of all their parts")
def a_mixture_of_mixtures(folder):
    s3io.Mix([s3io.Mix([numbers(folder)])])


@mistake(r"as_dtype= makes other types equal")
def a_mixture_of_layouts(folder):
    s3io.Mix([numbers(folder), s3io.RecordDataset(folder / "a.bin", dtype="u1")])


@mistake(r"dataset\.subset\(0, count\)")
def a_pair_of_other_lengths(folder):
    s3io.Zip(a=numbers(folder), b=numbers(folder, 90, "b.bin"))


@mistake(r"of a Zip, make one of each part")
def records_of_a_pair(folder):
    s3io.RecordMapDataset(s3io.Zip(a=numbers(folder)))


# ---- Loops.


@mistake(r"give one")
def a_last_step_both_ways(folder):
    numbers(folder, drop_last=True, pad_last=True)


@mistake(r"ranks are 0 to world_size - 1")
def a_rank_beyond_the_world(folder):
    numbers(folder, rank=2, world_size=2)


@mistake(r"raise that, or leave them out")
def workers_that_persist_without_workers(folder):
    s3io.DataLoader(numbers(folder), persistent_workers=True)


@mistake(r"needs a loader that has one, such as torch_s3io\.DataLoader.*not list")
def the_state_of_a_list(folder):
    s3io.DevicePrefetcher([1], "cpu").state_dict()


@mistake(r"give what state_dict\(\) gave")
def a_state_that_is_none(folder):
    numbers(folder).load_state_dict(torch.zeros(3))


@mistake(r"load another checkpoint")
def a_state_with_a_part_missing(folder):
    dataset = numbers(folder)
    state = dataset.state_dict()
    del state["order"]
    dataset.load_state_dict(state)


@mistake(r"Load it over the data that it is of")
def a_state_of_other_data(folder):
    numbers(folder, 90, "b.bin").load_state_dict(numbers(folder).state_dict())


@mistake(r"give it a default")
def a_transform_that_comes_to_its_end(folder):
    nothing: Any = iter(())
    list(numbers(folder, pool=None, transform=lambda batch: next(nothing)))


# ---- Writing.


@mistake(r"is a file, or lies below one; name a folder")
def a_file_in_place_of_the_folder(folder):
    (folder / "set").touch()
    writer(folder)


@mistake(r"numpy\.asarray")
def a_list_of_records(folder):
    writer(folder).write([[1.0, 2.0, 3.0]])


@mistake(r"call records\.astype\(")
def records_of_another_structure(folder):
    writer(folder, dtype=[("x", "f4")], shape=()).write(np.zeros(3, [("x", "f8")]))


@mistake(r"every write has all")
def a_field_forgotten(folder):
    writer(folder, dtype=[("x", "f4"), ("y", "i8")], shape=()).write({"x": np.zeros(3, "f4")})


@mistake(r"a write has as many of each")
def fields_of_other_lengths(folder):
    one = writer(folder, dtype=[("x", "f4"), ("y", "i8")], shape=())
    one.write({"x": np.zeros(3, "f4"), "y": np.zeros(2, "i8")})


@mistake(r"make another one to write more")
def a_write_after_the_end(folder):
    one = writer(folder)
    one.cancel()
    one.write(np.zeros((5, 3), "f4"))


@mistake(r"numpy\.ascontiguousarray")
def a_file_of_a_transposed_array(folder):
    s3io.FileStore().put(folder / "x", np.zeros((3, 4)).T)


@pytest.mark.parametrize("what", MISTAKES)
def test_the_error_of_a_mistake_says_what_to_do(disk, what):
    make, advice = MISTAKES[what]
    with pytest.raises((s3io.Error, RuntimeError)) as caught:
        make(disk)
    assert re.search(advice, str(caught.value)), str(caught.value)
    caught.value.__traceback__ = None  # its frames hold what was made
