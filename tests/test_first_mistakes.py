"""What somebody does who has not read the documentation, and what the errors then say."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import torch_s3io as s3io
from torch_s3io.__main__ import main


def records(folder: Path, count: int = 8) -> s3io.RecordDataset:
    np.arange(count * 4, dtype=np.float32).tofile(folder / "x.bin")
    return s3io.RecordDataset(folder / "x.bin", dtype=np.float32, shape=4, batch_size=4)


@pytest.mark.parametrize("address", ["gs://bucket/x", "https://host/x.npy", "file:///data/x.bin"])
def test_an_address_is_not_taken_for_a_local_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (
        lambda: s3io.RecordDataset(address, dtype="u1"),
        lambda: s3io.RecordDataset(["x.bin", address], dtype="u1"),
        lambda: s3io.RecordDataset.from_npy(address),
        lambda: s3io.RecordDataset.from_tokens(address, window=2),
        lambda: s3io.RecordWriter(address, dtype="u1"),
        lambda: s3io.FileStore().get(address),
        lambda: s3io.FileStore().put(address, b"bytes"),
    ):
        np.zeros(4, np.uint8).tofile("x.bin")
        with pytest.raises(s3io.ConfigError, match=f"{address}: is an address; here only files"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_an_address_that_pathlib_has_shortened_is_no_folder(tmp_path: Path) -> None:
    for use in (
        lambda: s3io.RecordDataset(Path("s3://bucket/x"), dtype="u1"),
        lambda: s3io.RecordWriter(Path("s3://bucket/x"), dtype="u1"),
        lambda: s3io.open_store(Path("s3://bucket")),
    ):
        with pytest.raises(s3io.ConfigError, match="as a text, 's3://bucket"):
            use()


@pytest.mark.parametrize(
    "arguments",
    [["pack", "gs://b/x", "-o", "y"], ["pack", "x.npy", "-o", "gs://b/y"], ["doctor", "gs://b/x"]],
)
def test_the_tools_take_no_address(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((4, 4)))
    assert main(arguments) == 1
    assert "is an address; here only files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_a_header_of_numpy_is_never_read_as_records(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((64, 8), np.float32))
    np.savez(tmp_path / "x.npz", np.zeros((64, 1023), np.float32))
    for name, dtype in (("x.npy", np.float32), ("x.npz", np.uint8)):
        with pytest.raises(s3io.DataError, match=f"{name}: is a file of numpy, .* for records"):
            s3io.RecordDataset(tmp_path / name, dtype=dtype)
    with pytest.raises(s3io.DataError, match=r"x\.npy: is a file of numpy, .* for tokens"):
        s3io.RecordDataset.from_tokens(tmp_path / "x.npy", window=8)
    after = s3io.RecordDataset(tmp_path / "x.npy", dtype=np.float32, shape=8, header_bytes=128)
    assert after.num_records == 64


def test_a_file_that_is_one_record_keeps_its_header(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(8, dtype=np.float32))
    size = (tmp_path / "x.npy").stat().st_size
    whole = s3io.RecordDataset(tmp_path / "x.npy", dtype=np.uint8, shape=size)
    assert bytes(whole.get_batch([0])[0].numpy()) == (tmp_path / "x.npy").read_bytes()


def test_bare_numbers_may_have_any_name(tmp_path: Path) -> None:
    np.arange(64, dtype=np.uint16).tofile(tmp_path / "x.npy")
    assert s3io.RecordDataset(tmp_path / "x.npy", dtype="uint16").num_records == 64
    assert s3io.RecordDataset.from_tokens(tmp_path / "x.npy", window=8).num_records == 8


def test_a_missing_file_is_said_before_a_missing_dtype(tmp_path: Path) -> None:
    with pytest.raises(s3io.NotFoundError, match=r"/pakced: is not there; name a file"):
        s3io.RecordDataset(tmp_path / "pakced")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(s3io.NotFoundError, match=r"/link: is a link to a file that is not there"):
        s3io.RecordDataset(tmp_path / "link", dtype="u1")


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        ([], "there are no files in it"),
        (["a.jpg", "b.jpg", "c.txt", ".hidden"], r"by a pattern, such as '.*/data/\*\.jpg'"),
        (["a.npy"], r"RecordDataset\.from_npy\('.*/data'\)"),
    ],
)
def test_a_folder_of_files_is_answered_with_what_reads_them(
    tmp_path: Path, names: list[str], advice: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    with pytest.raises(s3io.ConfigError, match=f"neither RecordWriter nor pack wrote.*{advice}"):
        s3io.RecordDataset(folder, dtype="u1")


def test_a_transform_that_returns_nothing_is_an_error(tmp_path: Path) -> None:
    dataset = records(tmp_path)

    def forgets(batch: object) -> None:
        """To return the batch."""

    with pytest.raises(s3io.ConfigError, match=r"transform returned None.*return the batch"):
        next(iter(dataset.with_options(transform=forgets)))
    with pytest.raises(s3io.ConfigError, match="transform returned None"):
        next(iter(s3io.Zip(x=dataset, transform=forgets)))


def test_a_path_is_no_data_set(tmp_path: Path) -> None:
    for path in ("train/*.bin", tmp_path):
        with pytest.raises(s3io.ConfigError, match=r"a data set, not the path .*RecordData"):
            s3io.DataLoader(path)


def test_a_whole_checkpoint_is_answered_with_the_state_in_it(tmp_path: Path) -> None:
    dataset = records(tmp_path)
    checkpoint = {"model": {}, "loader": dataset.state_dict()}
    with pytest.raises(s3io.DataError, match=r"load_state_dict\(checkpoint\['loader'\]\)"):
        dataset.load_state_dict(checkpoint)
    dataset.load_state_dict(checkpoint["loader"])


def test_a_loop_over_epochs_that_are_done_says_so(tmp_path: Path) -> None:
    loader = s3io.DataLoader(records(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [len(list(loader)) for _ in loader.epochs(2)] == [2, 2]
        assert list(loader.epochs(0)) == []
    with pytest.warns(RuntimeWarning, match=r"epochs\(2\): nothing is left.*set_epoch\(0\)"):
        assert list(loader.epochs(2)) == []
    loader.set_epoch(0)
    assert list(loader.epochs(2)) == [0, 1]


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (np.zeros((3, 4)), r"values\.astype\('float32'\) converts"),
        (torch.zeros(3, 4, dtype=torch.float64), r"values\.to\(torch\.float32\) converts"),
        (np.zeros(4, np.float32), r"of a single record, write values\[None\]"),
        (np.zeros((3, 5), np.float32), r"float32 \[3, 5\]$"),
    ],
)
def test_values_that_nearly_fit_are_answered_with_the_conversion(
    tmp_path: Path, values: object, advice: str
) -> None:
    writer = s3io.RecordWriter(tmp_path / "x", dtype=np.float32, shape=4)
    with pytest.raises(s3io.ConfigError, match=f"is expected, not .*{advice}"):
        writer.write(values)
    writer.cancel()


def test_pack_names_the_file_that_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(4))
    np.savez(tmp_path / "b.npz", np.zeros(4))
    (tmp_path / "c.bin").write_bytes(b"1234")
    for name, advice in (("b.npz", "numpy.save"), ("c.bin", "what is in it?")):
        paths = [str(tmp_path / "a.npy"), str(tmp_path / name)]
        assert main(["pack", *paths, "-o", str(tmp_path / "out")]) == 1
        text = capsys.readouterr().err
        assert f"{tmp_path / name}: " in text
        assert advice in text
