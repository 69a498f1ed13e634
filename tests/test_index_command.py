"""``index`` makes indexes ahead, ``info`` shows them, ``doctor`` tells of those that are stale."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from torch_s3io import SampleDataset, cli
from torch_s3io.doctor.indexes import indexes
from torch_s3io.index.column_file import map_columns


def write_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "0.tar", "0.jpg", "0.cls", "1.jpg")
    write_tar(folder / "1.tar", "2.jpg", "2.cls")
    return folder


def index_in(folder: Path) -> Path:
    [path] = folder.glob(".torch_s3io-*.idx")
    return path


@pytest.mark.parametrize("name", ["", "*.tar", "{0..1}.tar", "{0,1}.tar"])
def test_what_it_makes_is_what_a_data_set_maps(folder, name, capsys, monkeypatch):
    assert cli.main(["index", os.path.join(folder, name)]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[0] == str(index_in(folder))
    assert "archives     2, " in output
    assert "samples      3\n" in output
    assert "fields       jpg (3), cls (2)" in output
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    assert SampleDataset.from_tar(folder, fields=("jpg",)).num_records == 3
    assert SampleDataset.from_tar(sorted(folder.glob("*.tar")), missing="skip").num_records == 2
    assert cli.main(["index", *map(str, folder.glob("*.tar"))]) == 0


def test_the_place_of_an_index_may_be_named(folder, tmp_path, capsys):
    place = tmp_path / "elsewhere"
    place.mkdir()
    assert cli.main(["index", str(folder), "--place", str(place)]) == 0
    assert list(folder.glob(".*")) == []
    assert capsys.readouterr().out.splitlines()[0] == str(index_in(place))
    version = index_in(place).stat().st_ino
    assert SampleDataset.from_tar(folder, fields=("jpg",), index=place).num_records == 3
    assert index_in(place).stat().st_ino == version


def test_what_cannot_be_indexed_is_said_in_a_line(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("no tar")
    assert cli.main(["index", str(tmp_path / "text.txt")]) == 1
    assert "there are those of tar archives" in capsys.readouterr().err
    write_tar(folder / "2.tar", "0.jpg", "1.jpg", "0.cls")
    assert cli.main(["index", str(folder)]) == 1
    assert "2.tar: the members of sample '0' do not follow" in capsys.readouterr().err
    assert cli.main(["index", str(tmp_path / "missing.tar")]) == 1
    assert "missing.tar: is not there" in capsys.readouterr().err


def test_info_shows_an_index_and_whether_it_holds(folder, tmp_path, capsys):
    assert cli.main(["index", str(folder)]) == 0
    capsys.readouterr()
    for path in (folder, folder / "*.tar", index_in(folder)):
        assert cli.main(["info", str(path)]) == 0
        output = capsys.readouterr().out
        assert output.splitlines()[0] == str(index_in(folder))
        assert "of tar archives" in output
        assert "as the data are" in output
    os.utime(folder / "1.tar", (1, 1))
    assert cli.main(["info", str(folder), "--json"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert (entry["kind"], entry["is_current"], entry["samples"]) == ("tar", False, "3")
    (folder / "1.tar").unlink()
    assert cli.main(["info", str(folder)]) == 0
    assert "STALE: the data have changed" in capsys.readouterr().out
    index_in(folder).write_bytes(index_in(folder).read_bytes()[:-1])
    assert cli.main(["info", str(folder / index_in(folder).name)]) == 1
    assert "it was cut off; remove this file" in capsys.readouterr().err
    (tmp_path / "other.bin").write_bytes(b"bytes of mine")
    assert cli.main(["info", str(tmp_path / "other.bin")]) == 1
    assert "other.bin: info does not know what is in it" in capsys.readouterr().err
    assert cli.main(["info", f"{tmp_path}/*.bin"]) == 1
    assert "*.bin: there is no index of these data" in capsys.readouterr().err


@pytest.mark.parametrize("most", [0, 16 << 20])
def test_a_flipped_bit_in_what_is_said_of_samples_is_found(folder, most, capsys, monkeypatch):
    monkeypatch.setattr("torch_s3io.format.tar.tar_index._MOST_COMPARED", most)
    assert cli.main(["index", str(folder)]) == 0
    for name in ("starts", "lengths", "keys"):
        path = index_in(folder)
        column = map_columns(str(path)).columns[name].tobytes()
        data = bytearray(path.read_bytes())
        data[data.rindex(column)] ^= 1  # the head may have these bytes by chance
        path.write_bytes(data)
        capsys.readouterr()
        assert cli.main(["info", str(folder)]) == cli.main(["info", str(path), "--json"]) == 1
        assert f"the checksum of column '{name}' is another one" in capsys.readouterr().err
        [finding] = indexes(folder)
        assert (finding.status, finding.fix) == ("costs", f"rm {path}: the index is made again")
        if most:
            [batch] = SampleDataset.from_tar(folder, fields=("jpg",), return_key=True)
            assert batch["key"] == ["0", "1", "2"]
            assert [bytes(one.numpy()) for one in batch["jpg"]] == [b"abc"] * 3
        assert cli.main(["index", str(folder)]) == 0
        assert "as the data are" in capsys.readouterr().out
        map_columns(str(index_in(folder))).check()
        assert indexes(folder)[0].status == "ok"


def test_doctor_tells_of_an_index_that_does_not_hold(folder, tmp_path, monkeypatch):
    assert indexes(folder) == []
    SampleDataset.from_tar(folder, fields=("jpg",))
    [finding] = indexes(folder)
    assert (finding.topic, finding.status) == ("index", "ok")
    assert indexes(folder / "0.tar") == [finding]
    write_tar(folder / "1.tar", "2.jpg", "3.jpg")
    [finding] = indexes(folder)
    assert finding.status == "costs"
    assert str(index_in(folder)) in finding.found
    assert finding.fix.startswith(f"python -m torch_s3io index {folder}")
    SampleDataset.from_tar(folder, fields=("jpg",))
    [finding] = indexes(folder)
    assert finding.status == "ok"


def test_doctor_finds_those_in_the_cache_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    SampleDataset.from_tar(folder, fields=("jpg",))
    (tmp_path / "cache" / "torch_s3io").mkdir(parents=True)
    index_in(folder).rename(tmp_path / "cache" / "torch_s3io" / index_in(folder).name)
    [finding] = indexes(folder)
    assert finding.status == "ok"
    os.utime(folder / "0.tar", (1, 1))
    [finding] = indexes(folder)
    assert finding.status == "costs"
