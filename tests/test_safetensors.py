"""Safetensors files, against the format's own library, and files that lie."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from buckets import BUCKET, needs_s3, serving
from object_servers.buckets import Reply, Request

import torch_s3io as s3io

safetensors = pytest.importorskip("safetensors.torch")


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    values = torch.randn(7, 11, generator=torch.Generator().manual_seed(seed))
    return {
        "a": values,
        "half": values.half(),
        "brain": values.bfloat16()[:3],
        "eight": values.to(torch.float8_e4m3fn),
        "bools": values > 0,
        "long": (values * 100).long(),
        "number": torch.tensor(seed, dtype=torch.int16),
        "nothing": torch.empty(0, 5),
        'ünïcode "name"': values[0].double(),
    }


def check_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.shape == other[name].shape
        assert torch.equal(tensor.float(), other[name].float()), name


def test_what_others_wrote_is_read_and_the_other_way_round(tmp_path: Path):
    tensors, path = tensors_of(1), tmp_path / "one.safetensors"
    safetensors.save_file(tensors, path, {"format": "pt"})
    loaded = s3io.load_safetensors(path)
    check_equal(loaded, tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values()}) == 1
    turned = {name: tensor.t() if tensor.dim() == 2 else tensor for name, tensor in tensors.items()}
    s3io.save_safetensors(turned, path, metadata={"by": "us"})
    check_equal(safetensors.load_file(path), turned)
    check_equal(s3io.load_safetensors(path), turned)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"by": "us"}


def test_several_files_are_one_model_unless_they_share_a_name(tmp_path: Path):
    for number in range(2):
        tensors = {f"{number}.{name}": tensor for name, tensor in tensors_of(number).items()}
        s3io.save_safetensors(tensors, tmp_path / f"model-{number}.safetensors")
    assert len(s3io.load_safetensors(tmp_path / "model-*.safetensors")) == 18
    s3io.save_safetensors(tensors, tmp_path / "model-2.safetensors")
    with pytest.raises(s3io.DataError, match=r"model-2.*'1.long' is in another"):
        s3io.load_safetensors(tmp_path / "model-*.safetensors")
    with pytest.raises(s3io.NotFoundError):
        s3io.load_safetensors(tmp_path / "other.safetensors")


def test_a_tensor_that_lies_where_its_type_does_not_fit_is_copied(tmp_path: Path):
    path = tmp_path / "odd.safetensors"
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "wide": {"dtype": "F64", "shape": [2], "data_offsets": [1, 17]},
    }
    write(path, header, b"\x07" + struct.pack("<dd", 1.5, -2.5))
    loaded = s3io.load_safetensors(path)
    assert loaded["byte"].tolist() == [7]
    assert loaded["wide"].tolist() == [1.5, -2.5]


def write(path: Path, header: Any, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "JSON"),
        (b"[1]", "not an object"),
        (b'{"a":1,"a":1}', "same thing twice"),
        (b'{"a":' + b"[" * 100_000, "JSON"),
        ({"a": 3}, "not an object"),
        ({"a": entry(dtype="F99")}, "is not known"),
        ({"a": entry(dtype=7)}, "not a string"),
        ({"a": entry(shape="2")}, "not a list"),
        ({"a": entry(shape=[2.0])}, "not an integer"),
        ({"a": entry(shape=[-2])}, "not between"),
        ({"a": entry(shape=[1 << 62, 1 << 62])}, "not between"),
        ({"a": entry(shape=[0, 1 << 39, 1 << 39])}, "does not fit"),
        ({"a": entry(shape=[1] * 100)}, "100 dimensions"),
        ({"a": entry(offsets=[0])}, "not two"),
        ({"a": entry(offsets=[0, 12])}, "not between"),
        ({"a": entry(offsets=[8, 0])}, "have 8 bytes"),
        ({"a": entry(shape=[1])}, "have 4 bytes"),
        ({"a": entry(), "b": entry()}, "begins at 0, not at 8"),  # overlap
        ({"a": entry(shape=[1], offsets=[4, 8])}, "begins at 4, not at 0"),  # a hole
        ({"a": entry(shape=[1], offsets=[0, 4])}, "have 4 bytes, and the file has 8"),
        ({"__metadata__": {"a": 1}, "a": entry()}, "no string"),
        ({"__metadata__": [], "a": entry()}, "not an object"),
    ],
)
def test_a_header_that_lies_is_an_error(tmp_path: Path, header: Any, text: str):
    path = tmp_path / "bad.safetensors"
    write(path, header, bytes(8))
    with pytest.raises(s3io.DataError, match=text) as refused:
        s3io.load_safetensors(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_cut_anywhere_is_an_error(tmp_path: Path):
    path, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    s3io.save_safetensors({"a": torch.arange(3)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(s3io.DataError):
            s3io.load_safetensors(cut)
    cut.write_bytes((1 << 60).to_bytes(8, "little") + whole[8:])
    with pytest.raises(s3io.DataError, match="header would have"):
        s3io.load_safetensors(cut)


@pytest.mark.parametrize("is_bucket", [False, pytest.param(True, marks=needs_s3)])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_file_that_is_replaced_between_two_reads_is_an_error(
    disk: Path, step: int, is_bucket: bool, monkeypatch: pytest.MonkeyPatch
):
    """It is as long as before, and its header too, but names another tensor."""
    for name in "ab":
        s3io.save_safetensors({name: torch.full((5,), ord(name))}, disk / name)
    old, new = (disk / "a").read_bytes(), (disk / "b").read_bytes()
    assert len(old) == len(new)
    count = 0

    def replaces() -> bool:
        nonlocal count
        count += 1
        return count == step

    if is_bucket:
        with serving() as server:
            server.buckets.put(BUCKET, "x", old)
            answer = server.answer

            def answer_first(request: Request) -> Reply:
                reply = answer(request)
                if replaces():
                    server.buckets.put(BUCKET, "x", new)
                return reply

            count = -1  # it is looked for before it is looked at
            server.answer = answer_first
            with pytest.raises(s3io.ObjectChangedError, match="x"):
                s3io.load_safetensors(f"s3://{BUCKET}/x")
            assert count == step + 1
            loaded = s3io.load_safetensors(f"s3://{BUCKET}/x")
    else:
        (disk / "x").write_bytes(old)
        os.utime(disk / "b", ns=(0, (disk / "x").stat().st_mtime_ns + 1))
        get_range = s3io.FileStore.get_range

        def get_late(*arguments: Any, **options: Any) -> torch.Tensor:
            if replaces():
                os.replace(disk / "b", disk / "x")
            return get_range(*arguments, **options)

        monkeypatch.setattr(s3io.FileStore, "get_range", get_late)
        with pytest.raises(s3io.FileChangedError, match="x: was changed or replaced"):
            s3io.load_safetensors(disk / "x")
        assert count == step
        loaded = s3io.load_safetensors(disk / "x")
    assert loaded.keys() == {"b"}


def test_what_the_format_has_no_place_for_is_refused(tmp_path: Path):
    path = tmp_path / "none.safetensors"
    for tensors in (
        {"__metadata__": torch.zeros(1)},
        {3: torch.zeros(1)},
        {"a": torch.zeros(2, 2).to_sparse()},
        {"a": torch.zeros(1, dtype=torch.complex128)},
        {"a": [1, 2]},
    ):
        with pytest.raises(s3io.ConfigError):
            s3io.save_safetensors(tensors, path)
    with pytest.raises(s3io.ConfigError):
        s3io.save_safetensors({"a": torch.zeros(1)}, path, metadata={"a": 1})
    assert not path.exists()
