"""What the headers of arrays say is kept beside the listing of their files: read once."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from support import write_file

from torch_s3io import ConfigError, DataError, FileChangedError, SampleDataset
from torch_s3io.cli import main
from torch_s3io.index.column_file import map_columns
from torch_s3io.index.column_writer import write_columns

COUNT = 12


def arrays_of(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {
        "wave": random.random((number, 3)).astype(">f4"),
        "mask": random.integers(0, 255, (5, number + 1), dtype=np.uint8),
        "label": np.array(number, ">i8"),
        "phase": np.array(number * 1j, np.complex64),
    }


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    folder = tmp_path / "waves"
    folder.mkdir()
    for number in range(COUNT):
        np.save(folder / f"{number:02}.npy", arrays_of(number)["wave"])
        np.savez(folder / f"{number:02}.npz", **arrays_of(number))
    return folder


def read_npy(waves: Path, index, **options) -> SampleDataset:
    options = {"batch_size": 1000, **options}
    return SampleDataset.from_npy_files(f"{waves}/*.npy", index=index, **options)


def read_npz(waves: Path, index, fields=("wave", "label", "mask", "phase")) -> SampleDataset:
    return SampleDataset.from_npz(f"{waves}/*.npz", fields=fields, index=index, batch_size=1000)


def rows(dataset: SampleDataset, name: str = "data") -> list:
    (batch,) = dataset
    return [row.tolist() for row in batch[name]]


def expected(name: str = "wave") -> list:
    return [arrays_of(number)[name].tolist() for number in range(COUNT)]


def spoil_headers(waves: Path) -> None:
    """So that nobody can read them; the files' sizes and times are as before."""
    for path in waves.iterdir():
        times = path.stat()
        with open(path, "r+b") as file:
            file.write(b"\0" * 20)
            file.seek(-22, os.SEEK_END)
            file.write(b"\0" * 22 if path.suffix == ".npz" else b"")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_headers_are_read_once(waves, tmp_path):
    npy, npz = tmp_path / "npy.idx", tmp_path / "npz.idx"
    for _ in range(2):
        assert rows(read_npy(waves, npy)) == expected()
        dataset = read_npz(waves, npz)
        for name in ("wave", "label", "mask", "phase"):
            assert rows(dataset, name) == expected(name)
        spoil_headers(waves)
    read_npz(waves, npz, fields=("phase", "mask", "wave", "label"))  # in any order
    assert rows(pickle.loads(pickle.dumps(read_npy(waves, npy)))) == expected()
    with pytest.raises(DataError):
        read_npy(waves, False)
    with pytest.raises(DataError):
        read_npz(waves, False)


def test_shapes_and_types_are_chosen_with_an_index_as_without_one(waves, tmp_path):
    for number in range(COUNT):
        np.save(waves / f"{number:02}.npy", torch.ones(number, 3).bfloat16().view(torch.int16))
    for index in (False, tmp_path / "x.idx", tmp_path / "x.idx"):
        dataset = read_npy(waves, index, dtype=torch.bfloat16, shape=(None, None))
        assert dataset.shape == {"data": (None, None)}
        assert rows(dataset) == [[[1.0] * 3] * number for number in range(COUNT)]
        assert read_npy(waves, index).shape == {"data": (None, 3)}
        for shape in ((None, 4), (1, None)):
            with pytest.raises(DataError, match=r"00\.npy: the array 'data' has the shape \("):
                read_npy(waves, index, shape=shape)


def test_an_index_of_arrays_is_made_anew_where_a_folder_changes(waves, tmp_path):
    index = tmp_path / "x.idx"
    read_npy(waves, index)
    np.save(waves / "99.npy", np.ones((1, 3), ">f4"))
    assert rows(read_npy(waves, index)) == [*expected(), [[1.0] * 3]]
    np.save(waves / "99.npy", np.zeros((2, 3), ">f4"))  # in its place: no folder changes
    with pytest.raises(FileChangedError, match=r"99\.npy.*is removed"):
        rows(read_npy(waves, index))
    assert rows(read_npy(waves, index)) == [*expected(), [[0.0] * 3] * 2]
    np.save(waves / "98.npy", np.ones((1, 3)))
    with pytest.raises(DataError, match=r"98\.npy.*is float64"):
        read_npy(waves, index)


LIES = {
    "no starts": {"starts_0": None},
    "starts with a sign": {"starts_0": np.zeros(COUNT, "<i8")},
    "few starts": {"starts_0": np.zeros(3, "<u8")},
    "starts beyond": {"starts_0": np.full(COUNT, 1 << 40, "<u8")},
    "starts that overflow": {"starts_0": np.full(COUNT, (1 << 64) - 8, "<u8")},
    "lengths beyond": {"lengths_0": np.full((COUNT, 1), 1 << 20, "<u4")},
    "lengths that overflow": {"lengths_0": np.full((COUNT, 1), 1 << 63, "<u8")},
    "lengths of two axes": {"lengths_0": np.zeros((COUNT, 2), "<u4")},
}
ENTRY = {"name": "data", "dtype": ">f4", "shape": [None, 3], "is_packed": False}
WRONG_HEADS = [
    *(3, [], [3], [{}], [ENTRY, ENTRY], [{**ENTRY, "name": "x"}], [{**ENTRY, "name": 3}]),
    *([{**ENTRY, "dtype": one}] for one in (3, "no", "|O", ">f8,>f4", ">f8")),
    [{**ENTRY, "is_packed": True}],
    *([{**ENTRY, "shape": one}] for one in (3, [], [None], [None, -3], [None, "3"], [None, 1e3])),
]


def test_an_index_of_arrays_that_lies_is_made_anew(waves, tmp_path):
    index = tmp_path / "x.idx"
    read_npy(waves, index)
    file = map_columns(str(index))
    columns = {name: np.array(column) for name, column in file.columns.items()}
    for lie in LIES.values():
        wrong = {name: one for name, one in {**columns, **lie}.items() if one is not None}
        write_columns(str(index), file.head, wrong)
        assert rows(read_npy(waves, index)) == expected(), lie
    for arrays in WRONG_HEADS:
        write_columns(str(index), {**file.head, "arrays": arrays}, columns)
        assert rows(read_npy(waves, index)) == expected(), arrays


def test_an_open_data_set_of_arrays_has_no_object_for_each_file(tmp_path):
    count, folder, index = 3000, tmp_path / "many", tmp_path / "x.idx"
    folder.mkdir()
    data = {}
    for number in range(3):
        np.save(tmp_path / "x.npy", np.full(number, number))
        data[number] = (tmp_path / "x.npy").read_bytes()
    for number in range(count):
        (folder / f"{number:04}.npy").write_bytes(data[number % 3])
    read_npy(folder, index)
    tracemalloc.start()
    dataset = read_npy(folder, index)
    made = tracemalloc.take_snapshot()
    tracemalloc.stop()
    assert sum(one.count for one in made.statistics("filename")) < count
    assert len(pickle.dumps(dataset)) < 20_000
    batch = pickle.loads(pickle.dumps(dataset)).get_batch([1, count - 1, 0])
    assert [row.tolist() for row in batch["data"]] == [[1], [2, 2], []]


def test_commands_make_the_index_of_arrays_ahead(waves, capsys):
    npy, npz = f"{waves}/*.npy", f"{waves}/*.npz"
    assert main(["index", npy]) == 0
    assert "data: >f4 [n, 3]" in capsys.readouterr().out
    assert main(["index", npz, "--fields", "wave,label"]) == 0
    assert "label: >i8 [], wave: >f4 [n, 3]" in capsys.readouterr().out
    spoil_headers(waves)
    assert rows(read_npy(waves, True)) == expected()
    assert rows(read_npz(waves, True, ("label", "wave")), "label") == expected("label")
    assert main(["info", npy]) == 0
    assert "as the data are" in capsys.readouterr().out
    write_file(waves / "new.txt", b"")
    main(["doctor", "--quick", str(waves)])
    assert "the data have changed" in capsys.readouterr().out
    for command, text in (
        ([npz], "--fields image,mask"),
        ([npy, "--fields", "x"], "--fields is for .npz archives"),
        ([f"{waves}/*.txt", "--fields", "x"], "--fields is for .npz archives"),
    ):
        assert main(["index", *command]) == 1
        assert text in capsys.readouterr().err


def test_a_place_for_an_index_of_arrays_is_checked(waves):
    with pytest.raises(ConfigError, match="lies in the folder that the pattern lists"):
        read_npy(waves, waves / "x.idx")
    with pytest.raises(ConfigError, match="a list has none"):
        SampleDataset.from_npy_files([waves / "00.npy"], index=waves.parent / "x.idx")
