"""SampleWriter: what is written is what a reader of a few lines of Python finds."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from record_sets import check_clean, random_array, write_set
from sample_sets import FIELDS, read_samples, sample_of, value_of_samples, write_samples

import torch_s3io as s3io
from torch_s3io import ConfigError, DataError, RecordDataset
from torch_s3io.format.sample_table import load_table
from torch_s3io.format.samples import read_sample_manifest
from torch_s3io.writing.sample_writer import SampleWriter

MIB = 1 << 20
KINDS = ["u1", "?", "<i2", ">u2", "<f4", ">f8", "<c8", "<c16", "f2"]
SHAPES = [(), (3,), (None,), (None, 3), (None, None, 2), (2, None), (1, 4, None)]


def stored(sample: dict, fields: dict) -> dict:
    """As the reader of this test finds it."""
    found = {}
    for name, value in sample.items():
        kind = fields[name]
        dtype = kind[0] if isinstance(kind, tuple) else "u1" if kind is bytes else kind
        array = np.frombuffer(value, "u1") if isinstance(value, bytes) else np.asarray(value, dtype)
        found[name] = (array.tobytes(), array.shape)
    return found


@st.composite
def samples_of_any_fields(draw):
    kinds = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(SHAPES)),
                          min_size=1, max_size=4))  # fmt: skip
    fields = {f"f{number}": kind for number, kind in enumerate(kinds)}
    if draw(st.booleans()):
        fields["bytes"] = bytes
    lengths = st.one_of(st.integers(0, 6), st.integers(0, 700))
    samples = []
    for seed in range(draw(st.integers(1, 30))):
        sample = {}
        for name, kind in fields.items():
            if kind is bytes:
                length = draw(st.one_of(lengths, st.integers(0, 5000), st.just(3 * MIB + 5)))
                sample[name] = np.random.default_rng(seed).bytes(length)
            else:
                shape = tuple(
                    draw(lengths if kind[1].count(None) == 1 else st.integers(0, 9))
                    if extent is None else extent for extent in kind[1]
                )  # fmt: skip
                sample[name] = random_array(kind[0], 1, shape, seed)[0]
        samples.append(sample)
    return fields, samples


@settings(max_examples=40)
@given(
    given_samples=samples_of_any_fields(),
    shard_bytes=st.sampled_from([1, 700, 20_000, 8 << 20]),
    align=st.sampled_from(["auto", None, 16, 64, 512, 4096, 1 << 21]),
    how=st.sampled_from(["write", "batch", "columns", "both"]),
)
def test_samples_come_back(disk, given_samples, shard_bytes, align, how):
    fields, samples = given_samples
    options = {"shard_bytes": shard_bytes, "align_samples": align, "overwrite": True}
    with SampleWriter(disk / "set", fields=fields, **options) as writer:
        half = len(samples) // 2 if how == "both" else len(samples) * (how == "write")
        for sample in samples[:half]:
            writer.write(sample)
        rest = samples[half:]
        if how == "columns":
            writer.write_batch({name: [sample[name] for sample in rest] for name in fields})
        else:
            writer.write_batch(rest)
        assert writer.num_samples == len(samples)
    assert read_samples(disk / "set") == [stored(sample, fields) for sample in samples]
    check_clean(disk / "set")
    manifest = read_sample_manifest(str(disk / "set"))
    assert manifest.alignment >= (align if isinstance(align, int) else 16)
    for shard in manifest.shards:
        assert shard.size_bytes <= max(shard_bytes, 0) + 4096 or shard.num_samples == 1
        load_table(str(disk / "set" / shard.name), shard, manifest)


def test_one_by_one_or_in_batches_the_bytes_are_the_same(disk, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda count: "0123abcd")
    samples = [sample_of(3, number) for number in range(500)]
    columns = {name: [sample[name] for sample in samples] for name in FIELDS}
    ways = {
        "one": lambda writer: [writer.write(sample) for sample in samples],
        "all": lambda writer: writer.write_batch(samples),
        "columns": lambda writer: writer.write_batch(columns),
        "an iterator": lambda writer: writer.write_batch(iter(samples)),
    }
    for name, write in ways.items():
        with SampleWriter(disk / name, fields=FIELDS, shard_bytes=100_000) as writer:
            write(writer)
    first = {path.name: path.read_bytes() for path in (disk / "one").iterdir()}
    assert len(first) > 3
    for name in ways:
        assert {path.name: path.read_bytes() for path in (disk / name).iterdir()} == first


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_columns_may_be_arrays_tensors_nested_tensors_or_ragged(disk):
    lists = [[1, 2], [], [7, 8, 9]]
    flat, starts, lengths = np.array([0, 7, 8, 9, 1, 2], "u2"), [4, 0, 1], [2, 0, 3]
    tensors = [torch.tensor(values, dtype=torch.uint16) for values in lists]
    as_lists = SimpleNamespace(values=flat, starts=np.array(starts), lengths=np.array(lengths))
    as_tensors = SimpleNamespace(
        values=torch.from_numpy(flat), starts=torch.tensor(starts), lengths=torch.tensor(lengths)
    )
    for ragged in (as_lists, as_tensors):
        ragged_like = type("Like", (), {"__len__": lambda self: 3, "__getitem__": None})()
        ragged_like.__dict__.update(vars(ragged))
        tokens_of = {"ragged": ragged_like, "tensors": tensors, "arrays": np.array(
            [np.array(values, "u2") for values in lists], object)}  # fmt: skip
        for name, tokens in tokens_of.items():
            folder = disk / name
            fields = {"tokens": (np.uint16, (None,)), "image": (np.uint8, (None, 2)), "y": "f4"}
            with SampleWriter(folder, fields=fields, overwrite=True) as writer:
                images = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
                writer.write_batch({"tokens": tokens, "image": images, "y": torch.ones(3)})
            samples = read_samples(folder)
            found = [np.frombuffer(sample["tokens"][0], "<u2").tolist() for sample in samples]
            assert found == lists
            assert b"".join(s["image"][0] for s in samples) == images.numpy().tobytes()
            assert {sample["y"] for sample in samples} == {(np.float32(1).tobytes(), ())}
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(4)])
    with SampleWriter(disk / "nested", fields={"x": (np.float32, (None,))}) as writer:
        writer.write_batch({"x": nested})
    assert [sample["x"][1] for sample in read_samples(disk / "nested")] == [(2,), (4,)]


def test_large_fixed_size_fields_and_dtypes_that_only_torch_has_come_back(disk):
    fields = {"x": ("f4", (40, 40)), "y": np.uint8, "z": (torch.bfloat16, (None,)), "w": "i8"}
    x, z = random_array("f4", 9, (40, 40), 1), torch.randn(9, 5).to(torch.bfloat16)
    with SampleWriter(disk / "set", fields=fields) as writer:
        writer.write_batch({"x": x[:8], "y": np.arange(8, dtype="u1"), "z": z[:8], "w": [5] * 8})
        writer.write({"x": torch.from_numpy(x[8]), "y": 8, "z": z[8], "w": np.int64(5)})
    samples = read_samples(disk / "set")
    assert b"".join(sample["x"][0] for sample in samples) == x.tobytes()
    assert b"".join(sample["y"][0] for sample in samples) == bytes(range(9))
    assert b"".join(sample["z"][0] for sample in samples) == z.view(torch.int16).numpy().tobytes()
    assert {sample["w"][0] for sample in samples} == {(5).to_bytes(8, "little")}


def test_texts_are_utf_8_and_bytes_are_whatever_has_them(disk):
    with SampleWriter(disk / "set", fields={"text": str, "data": bytes}) as writer:
        writer.write({"text": "größe", "data": bytearray(b"ab")})
        writer.write({"text": "", "data": memoryview(np.arange(4, dtype="u1"))[::2]})
        writer.write({"text": "x", "data": memoryview(np.array([1], "<u2"))})
        writer.write_batch({"text": ["a", "ü"], "data": [torch.ones(2, dtype=torch.uint8), b""]})
    samples = read_samples(disk / "set")
    assert [sample["text"][0].decode() for sample in samples] == ["größe", "", "x", "a", "ü"]
    assert [sample["data"][0] for sample in samples] == [
        *(b"ab", b"\0\2", b"\1\0", b"\1\1", b"")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "alignment"),
    [
        ([114_660] * 50, 4096),
        ([4096] * 50, 4096),
        ([500] * 50, 512),
        ([100_000 + 37 * n for n in range(50)], 4096),
        ([20_000 + 37 * n for n in range(200)], 512),
        ([100] * 50, 16),
    ],
)
def test_auto_aligns_where_that_costs_under_three_percent(disk, sizes, alignment):
    with SampleWriter(disk / "set", fields={"data": bytes}) as writer:
        writer.write_batch([{"data": bytes(size)} for size in sizes])
    manifest = read_sample_manifest(str(disk / "set"))
    assert manifest.alignment % alignment == 0
    assert (manifest.alignment == 16) == (alignment == 16)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 60_000), min_size=1, max_size=60), sort=st.booleans())
def test_zeros_between_samples_stay_under_three_percent_beyond_sixteen_bytes(disk, sizes, sort):
    sizes = sorted(sizes, reverse=True) if sort else sizes
    with SampleWriter(disk / "set", fields={"data": bytes}, overwrite=True) as writer:
        writer.write_batch([{"data": bytes(size)} for size in sizes])
    manifest = read_sample_manifest(str(disk / "set"))
    (shard,) = manifest.shards
    starts = load_table(str(disk / "set" / shard.name), shard, manifest).starts[0].tolist()
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    padding = sum(start - end for start, end in zip(starts[1:], ends[:-1], strict=True))
    assert padding <= 0.03 * sum(sizes) + 16 * len(sizes)


def test_the_manifest_says_how_large_samples_are(disk):
    sizes = [0, 5, 100, 7000]
    with SampleWriter(disk / "set", fields={"data": bytes, "n": "u1"}, shard_bytes=150) as writer:
        writer.write_batch([{"data": bytes(size), "n": 1} for size in sizes])
    manifest = read_sample_manifest(str(disk / "set"))
    of_samples = np.array(sizes) + 1
    assert manifest.data_bytes == of_samples.sum()
    assert manifest.largest_sample_bytes == 7001
    assert abs(manifest.rms_sample_bytes - np.sqrt((of_samples**2.0).mean())) <= 1
    assert manifest.largest_lengths == ((7000,),)
    assert manifest.layout.index_bytes(4) == 16


WRONG_FIELDS = [
    ({}, "fields= is a dict"),
    ([("x", "u1")], "fields= is a dict"),
    ({"": "u1"}, "no name of a field"),
    ({3: "u1"}, "no name of a field"),
    ({"x": None}, "'x': .*dtype"),
    ({"x": "uint9"}, "'x': 'uint9' is not a dtype.*A field is a dtype"),
    ({"x": object}, "'x': .*Python objects"),
    ({"x": (bytes, (3,))}, "'x': bytes and str have no shape"),
    ({"x": ("u1", (-1,))}, "'x': every entry of its shape"),
    ({"x": ("u1", "3")}, "'x': every entry of its shape"),
    ({"x": [("a", "u1"), ("b", "u1")]}, "'x' is a structure; make 'a', 'b' fields"),
    ({"x": ("u1", (None,) * 9)}, "at most 16 axes"),
    ({"x": ("u1", (1 << 41,))}, "too large"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG_FIELDS)
def test_fields_that_cannot_be_are_refused(disk, fields, text):
    with pytest.raises(ConfigError, match=text):
        SampleWriter(disk / "set", fields=fields)
    assert not (disk / "set").exists()


GOOD = {"data": b"x", "tokens": np.zeros(3, "u2"), "label": 1, "box": np.zeros(4, "f4")}
WRONG_VALUES = [
    ({"data": "text"}, r"sample 1, field 'data': bytes, or uint8 \[n\] is expected, not str"),
    ({"data": np.zeros(3, "i1")}, r"'data': .* not int8 \[3\]"),
    ({"data": np.zeros((3, 1), "u1")}, r"'data': .* not uint8 \[3, 1\]"),
    ({"tokens": b"xx"}, r"'tokens': uint16 \[n\] is expected, not bytes"),
    ({"tokens": [1, 2]}, r"'tokens': .* not list; numpy\.asarray"),
    ({"tokens": np.zeros(3, "i8")}, r"'tokens': .* not int64 \[3\]"),
    ({"tokens": 5}, r"'tokens': .* not int"),
    ({"tokens": np.ma.masked_equal(np.zeros(3, "u2"), 0)}, "'tokens': masked"),
    ({"tokens": torch.zeros(3, dtype=torch.uint16, device="meta")}, r"call \.cpu\(\)"),
    ({"label": np.zeros(3, "i8")}, r"'label': a number of int64 is expected, not int64 \[3\]; "
                                   r"fields={'label': \(np\.int64, \(None,\)\)} takes arrays"),
    ({"label": 1.0}, "'label': int64 cannot hold 1.0 as it is"),
    ({"label": True}, "'label': int64 cannot hold True"),
    ({"label": 1 << 63}, "'label': int64 cannot hold 9223372036854775808"),
    ({"label": np.int32(1)}, r"'label': a number of int64 is expected, not int32"),
    ({"label": "1"}, "'label': a number of int64 is expected, not str"),
    ({"label": None}, "'label': a number of int64 is expected, not NoneType"),
    ({"label": [1]}, "'label': a number of int64 is expected, not list"),
    ({"box": np.zeros(5, "f4")}, r"'box': float32 \[4\] is expected, not float32 \[5\]"),
    ({"box": [0.0] * 4}, r"'box': float32 \[4\] is expected, not list"),
    ({"more": 1}, "sample 1: no field is named 'more': the fields are 'data', .*every sample"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "text"), WRONG_VALUES)
def test_what_is_not_of_its_field_is_refused_and_harms_nothing(disk, wrong, text):
    fields = {**FIELDS, "box": (np.float32, (4,))}
    with SampleWriter(disk / "set", fields=fields) as writer:
        writer.write(GOOD)
        with pytest.raises(ConfigError, match=text):
            writer.write_batch([GOOD, {**GOOD, **wrong}])
        with pytest.raises(ConfigError, match=text.replace("sample 1", "sample 0")):
            writer.write({**GOOD, **wrong})
        if "more" not in wrong:
            columns = {name: [GOOD[name], {**GOOD, **wrong}[name]] for name in GOOD}
            with pytest.raises(ConfigError, match=text):
                writer.write_batch(columns)
        for nothing in ([], {name: [] for name in fields}):
            writer.write_batch(nothing)
        writer.write(GOOD)
        assert writer.num_samples == 2
    assert read_samples(disk / "set") == [stored(GOOD, fields)] * 2


def test_what_is_no_sample_or_no_batch_is_refused(disk):
    with SampleWriter(disk / "set", fields={"x": "f4", "y": bytes}) as writer:
        for wrong in (None, 5, [1], b"x", {"x": 1.0}):
            with pytest.raises(ConfigError, match=r"sample 0: "):
                writer.write(wrong)
        for wrong, text in [
            (5, "a list of dicts, or a dict"),
            ([5], "sample 0: a dict"),
            ({"x": np.ones(2, "f4"), "y": [b""]}, "'y' has 1 samples, 'x' has 2"),
            ({"x": np.float32(1), "y": [b""]}, "'x': a list, array or Ragged"),
            ({"x": [1.0], "y": b"x"}, "'y': a list, array or Ragged"),
            ({"x": np.ones(1), "y": [b""]}, r"'x': float32 \[B\] is expected, .* float64 \[1\]"),
            ({"x": [1.0], "y": np.ones((1, 2, 3), "u1")}, r"'y': uint8 \[B, n\] is expected"),
        ]:
            with pytest.raises(ConfigError, match=text):
                writer.write_batch(wrong)
        writer.write({"x": 1, "y": b""})
    with SampleWriter(disk / "floats", fields={"x": "f2", "z": "c8"}) as writer:
        for wrong in (1 << 40, 2049, 1e10, 1j, (1 << 2000)):
            with pytest.raises(ConfigError, match="'x': float16 cannot hold"):
                writer.write({"x": wrong, "z": 0})
        writer.write({"x": float("inf"), "z": 1j})
        writer.write({"x": 0.1, "z": 7})
    assert [sample["x"][0] for sample in read_samples(disk / "floats")] == [
        np.float16(value).tobytes() for value in (np.inf, 0.1)
    ]


def test_options_that_cannot_be_are_refused(disk):
    for options, text in [
        ({"shard_bytes": 0}, "shard_bytes"),
        ({"align_samples": 3}, "align_samples must be a power of two"),
        ({"align_samples": 8}, "align_samples must be 16 at least"),
        ({"align_samples": "yes"}, "align_samples"),
        ({"config": 5}, "config must be"),
        ({"overwrite": 1}, "overwrite must be"),
    ]:
        with pytest.raises(ConfigError, match=text):
            SampleWriter(disk / "set", fields=FIELDS, **options)
    with pytest.raises(TypeError, match="did you mean 'fields'"):
        SampleWriter(disk / "set", field=FIELDS)
    with pytest.raises(ConfigError, match="no samples were written"):
        SampleWriter(disk / "set", fields=FIELDS).finish()


def test_sets_of_samples_and_of_records_take_each_others_place(disk):
    write_set(disk / "set", 1)
    with pytest.raises(ConfigError, match="holds a data set of 1000 records in 4 shards already"):
        SampleWriter(disk / "set", fields=FIELDS)
    write_samples(disk / "set", 2)
    assert value_of_samples(disk / "set") == 2
    check_clean(disk / "set")
    with pytest.raises(ConfigError, match=r"holds a data set of 500 samples in \d shards already"):
        write_set(disk / "set", 1, overwrite=False)
    with pytest.raises(DataError, match="samples of any length, as SampleWriter writes them"):
        RecordDataset(disk / "set")
    write_samples(disk / "set", 3)
    check_clean(disk / "set")
    write_set(disk / "set", 1)
    check_clean(disk / "set")
    with pytest.raises(DataError, match="holds records of one size"):
        read_sample_manifest(str(disk / "set"))


def test_samples_of_several_threads_stay_whole_and_in_the_order_of_their_thread(disk):
    fields = {"thread": "i4", "number": "i4", "data": bytes}
    with SampleWriter(disk / "set", fields=fields, shard_bytes=20_000) as writer:

        def write(thread: int) -> None:
            for number in range(100):
                data = bytes([thread]) * (number * 5)
                writer.write({"thread": thread, "number": number, "data": data})

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(write, range(4)))
    samples = read_samples(disk / "set")
    assert len(samples) == 400
    for thread in range(4):
        of_thread = [s for s in samples if s["thread"][0] == thread.to_bytes(4, "little")]
        assert [len(sample["data"][0]) for sample in of_thread] == [5 * n for n in range(100)]
        assert all(set(sample["data"][0]) <= {thread} for sample in of_thread)


def test_the_worked_example_of_the_documentation_is_what_is_written(disk, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
    text = text[text.index("# The format of a folder of samples") :]
    source, dump, manifest = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(disk)
    monkeypatch.setattr("secrets.token_hex", lambda count: "5f0c21ab")
    exec(source, {"np": np, "s3io": s3io})
    assert (disk / "tiny" / "manifest.json").read_text() == manifest
    found = (disk / "tiny" / json.loads(manifest)["shards"][0]["name"]).read_bytes()
    shown = bytearray(len(found))
    for line in dump.splitlines():
        place, digits = int(line[:8], 16), bytes.fromhex(line[8:])
        shown[place : place + len(digits)] = digits
    assert shown == found
