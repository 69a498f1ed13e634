"""Types that numpy lacks, or that tensors lack, in `.npy` files: bfloat16, float8, times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from npy_files import by_hand, read_whole

from torch_s3io import ConfigError, RecordDataset, RecordWriter
from torch_s3io.cli import main

try:
    import ml_dtypes
except ImportError:  # what its types leave in files is made by hand, too
    ml_dtypes = None


LACKING = ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


def values_of(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """All bytes are values of these types: random ones."""
    dtype = getattr(torch, name)
    raw = np.random.default_rng(0).integers(0, 256, (*shape[:-1], shape[-1] * dtype.itemsize))
    return torch.from_numpy(raw.astype(np.uint8)).view(dtype)


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def descr_of(name: str) -> str:
    """As ml_dtypes has numpy write it; numpy itself cannot read the second one."""
    return {"bfloat16": "<V2", "float8_e5m2": "<f1"}.get(name, "<V1")


def check_that_both_ways_are_the_values(path, name: str, values: torch.Tensor) -> None:
    for dtype in (getattr(torch, name), name):
        got = read_whole(path, dtype=dtype, batch_size=7)
        assert got.dtype == getattr(torch, name)
        assert got.shape == values.shape
        assert raw_bytes(got) == raw_bytes(values)


@pytest.mark.parametrize("name", LACKING)
def test_types_that_numpy_lacks_are_read_where_they_are_named(disk, name):
    values = values_of(name, (30, 4, 3))
    path = disk / "x.npy"
    path.write_bytes(by_hand(repr(descr_of(name)), "(30, 4, 3)", raw_bytes(values)))
    check_that_both_ways_are_the_values(path, name, values)
    with pytest.raises(ConfigError, match=r"x\.npy.*(bfloat16|float8_e4m3fn).*--dtype"):
        RecordDataset.from_npy(path)


@pytest.mark.parametrize("name", LACKING)
@pytest.mark.skipif(ml_dtypes is None, reason="NEEDS ML_DTYPES: not tested")
def test_what_ml_dtypes_saves_is_read(disk, name):
    values = values_of(name, (30, 4))
    array = values.view(torch.uint8).numpy().view(getattr(ml_dtypes, name))
    np.save(disk / "x.npy", array)
    check_that_both_ways_are_the_values(disk / "x.npy", name, values)
    array.tofile(disk / "x.bin")
    dtypes = [getattr(ml_dtypes, name), np.dtype(getattr(ml_dtypes, name)), name]
    for number, dtype in enumerate(dtypes):  # two of them are equal
        (batch,) = RecordDataset(disk / "x.bin", dtype=dtype, shape=4)
        assert raw_bytes(batch) == raw_bytes(values)
        with RecordWriter(disk / f"set-{number}", dtype=dtype, shape=4) as writer:
            writer.write(array)
            writer.write(values)
        (batch,) = RecordDataset(disk / f"set-{number}")
        assert raw_bytes(batch) == raw_bytes(values) * 2


@pytest.mark.skipif(ml_dtypes is None, reason="NEEDS ML_DTYPES: not tested")
def test_fields_of_such_types_are_read_and_written(disk):
    record = np.dtype([("label", "u1"), ("x", ml_dtypes.bfloat16, 3), ("y", ml_dtypes.float8_e5m2)])
    array = np.zeros(20, record)
    array["label"] = np.arange(20)
    array["x"] = np.arange(60).reshape(20, 3)
    array["y"] = np.arange(20) % 4
    np.save(disk / "x.npy", array)
    with pytest.raises(ConfigError, match=r"x\.npy: field 'x'.*bfloat16"):
        RecordDataset.from_npy(disk / "x.npy")
    with RecordWriter(disk / "set", dtype=record) as writer:
        writer.write(array[:8])
        columns = {name: np.ascontiguousarray(array[name][8:]) for name in ("label", "x")}
        columns["y"] = torch.from_numpy(array["y"][8:].view("u1").copy()).view(torch.float8_e5m2)
        writer.write(columns)
    by_header = RecordDataset.from_npy(disk / "x.npy", dtype=record)
    for dataset in (by_header, RecordDataset(disk / "set")):
        (batch,) = dataset
        assert batch["label"].tolist() == list(range(20))
        assert batch["x"].dtype == torch.bfloat16
        assert batch["x"].float().tolist() == array["x"].astype("f4").tolist()
        assert batch["y"].float().tolist() == [number % 4 for number in range(20)]


def test_bfloat16_that_was_saved_as_integers_is_read(disk):
    values = values_of("bfloat16", (30, 4))
    np.save(disk / "x.npy", values.view(torch.int16).numpy())
    assert raw_bytes(read_whole(disk / "x.npy", dtype=torch.bfloat16)) == raw_bytes(values)
    assert read_whole(disk / "x.npy").dtype == torch.int16


@pytest.mark.parametrize("saved", ["f4", "f2", ">i2", "u4", "u1", [("a", "u1"), ("b", "u1")]])
def test_a_dtype_that_the_header_contradicts_is_refused(disk, saved):
    np.save(disk / "x.npy", np.zeros(3 if isinstance(saved, list) else (3, 2), saved))
    with pytest.raises(ConfigError, match=r"x\.npy: holds .* does not fit; leave dtype= out"):
        RecordDataset.from_npy(disk / "x.npy", dtype=torch.bfloat16)


@pytest.mark.parametrize("unit", ["M8[ns]", "m8[s]"])
def test_times_are_read_as_integers_as_the_error_says(disk, unit):
    np.save(disk / "x.npy", np.array([1, -5, 2**40], unit))
    with pytest.raises(ConfigError, match=r"x\.npy: .*read it as np\.int64"):
        RecordDataset.from_npy(disk / "x.npy")
    dataset = RecordDataset.from_npy(disk / "x.npy", dtype=np.int64, batch_size=3)
    assert next(iter(dataset)).tolist() == [1, -5, 2**40]
    with pytest.raises(ConfigError, match="does not fit"):
        RecordDataset.from_npy(disk / "x.npy", dtype=np.float64)


def test_a_dtype_that_the_header_has_is_allowed(disk):
    np.save(disk / "x.npy", np.arange(6, dtype="f4").reshape(3, 2))
    for dtype in ("f4", np.float32, torch.float32):
        assert read_whole(disk / "x.npy", dtype=dtype).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_bytes_of_no_type_can_still_be_read_as_the_message_says(disk):
    np.save(disk / "x.npy", np.frombuffer(bytes(range(50)), "V5"))
    with pytest.raises(ConfigError, match=r"x\.npy.*header_bytes=128") as caught:
        RecordDataset.from_npy(disk / "x.npy")
    assert "np.uint8 with shape (5,)" in str(caught.value)
    (batch,) = RecordDataset(disk / "x.npy", dtype=np.uint8, shape=(5,), header_bytes=128)
    assert batch.flatten().tolist() == list(range(50))


def test_pack_takes_them_too(disk, capsys):
    values = values_of("bfloat16", (30, 4))
    (disk / "x.npy").write_bytes(by_hand("'<V2'", "(30, 4)", raw_bytes(values)))
    arguments = ["pack", f"{disk}/x.npy", "-o", f"{disk}/set"]
    assert main(arguments) == 1
    assert "--dtype bfloat16" in capsys.readouterr().err
    assert main([*arguments, "--dtype", "bfloat16"]) == 0
    (batch,) = RecordDataset(disk / "set")
    assert batch.dtype == torch.bfloat16
    assert raw_bytes(batch) == raw_bytes(values)
