"""Tar archives that are damaged, or that SampleDataset.from_tar does not read."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from tar_files import numbered, read_samples, samples_of, write_shards, write_tar

from torch_s3io import ConfigError, DataError, SampleDataset


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    return write_shards(tmp_path)


def test_compressed_archives_say_what_to_do(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("0.jpg"))
    for make in (SampleDataset.from_tar, SampleDataset):
        with pytest.raises(
            DataError, match=r"a\.tar\.gz: is compressed by gzip; .* decompress it once, by gunzip"
        ):
            make(path)


def test_a_key_that_comes_again_and_archives_without_samples_are_errors(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.a": b"", "1.a": b"", "0.b": b"", "1.b": b""})
    with pytest.raises(DataError, match="the members of sample '0' do not follow one another"):
        SampleDataset.from_tar(path)
    path = write_tar(tmp_path / "a.tar", {"readme": b""})
    with pytest.raises(DataError, match=r"there are no samples in 1 archive: .* such as 7\.jpg"):
        SampleDataset.from_tar(path)
    many = {f"{number}.x{number}": b"" for number in range(70)}
    path = write_tar(tmp_path / "a.tar", many)
    with pytest.raises(ConfigError, match="70 different extensions: name those that are wanted"):
        SampleDataset.from_tar(path)


def test_the_registry_reads_archives_with_all_their_fields(shards):
    with pytest.raises(DataError, match=r"no field 'json'.*options of SampleDataset\.from_tar"):
        SampleDataset(shards)
    shards = [write_tar(path, {"0.jpg": b"j", "0.cls": b"c"}) for path in shards]
    [batch] = SampleDataset(shards[0].parent / "*.tar", batch_size=30)
    assert list(batch) == ["cls", "jpg"]
    with pytest.raises(ConfigError, match="no checksums"):
        SampleDataset(shards, verify=True)


def test_hard_links_are_read_and_symbolic_ones_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("0.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "0.jpg"
        archive.addfile(link)
    found = read_samples(SampleDataset.from_tar(path, fields=("jpg",), return_key=True))
    assert found == [("0", {"jpg": b"abc"}), ("1", {"jpg": b"abc"})]
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("2.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "0.jpg"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"'2\.jpg' at byte .* is a symbolic link"):
        SampleDataset.from_tar(path)


SMALL = {"0.jpg": b"abc", "1.jpg": b"defg"}


def places_in(content: bytes) -> list[int]:
    """Up to the end's first block, all but most of those amid zeros, of which there are many."""

    def tells(at: int) -> bool:
        return at % 512 in (0, 1, 511) or at % 13 == 0 or any(content[max(at - 1, 0) : at + 2])

    return [at for at in range(2600) if tells(at)]


def test_an_archive_that_is_cut_off_between_members_is_warned_of(tmp_path):
    path = write_tar(tmp_path / "x.tar", numbered(3))
    whole = path.read_bytes()
    assert len(SampleDataset.from_tar(path, fields=("cls",), index=False)) == 1  # and no warning
    with tarfile.open(path) as archive:
        second = archive.getmembers()[3].offset
    path.write_bytes(whole[:second])
    with pytest.warns(RuntimeWarning, match=r"1 archive without the zeros.*x\.tar: cut off"):
        dataset = SampleDataset.from_tar(path, fields=("cls",), index=False)
    assert dataset.num_records == 1


def test_archives_one_behind_the_other_are_no_archive(shards):
    first, second = (path.read_bytes() for path in shards[:2])
    shards[2].write_bytes(first + second)
    with pytest.raises(DataError, match=rf"a member follows at byte {len(first)}; .*--concat"):
        SampleDataset.from_tar(shards[2], index=False)
    os.truncate(shards[2], len(first))
    assert SampleDataset.from_tar(shards[2], fields=("jpg",), index=False).num_records == 10


@pytest.mark.filterwarnings("ignore:.*without the zeros that end one:RuntimeWarning")
def test_a_small_archive_cut_anywhere_is_refused_or_has_whole_samples(tmp_path):
    path = write_tar(tmp_path / "a.tar", SMALL)
    content, whole = path.read_bytes(), samples_of([path])
    for cut in [*places_in(content), len(content)]:
        path.write_bytes(content[:cut])
        try:
            dataset = SampleDataset.from_tar(path, fields=("jpg",), index=False,
                                             return_key=True, pool=None, direct="off")  # fmt: skip
            found = read_samples(dataset)
        except DataError:
            continue
        assert found in (whole[:1], whole)


@pytest.mark.filterwarnings("ignore:.*no sample of .* has the field:RuntimeWarning")
def test_a_small_archive_with_any_byte_flipped_is_refused_or_as_tarfile_reads_it(tmp_path):
    path = write_tar(tmp_path / "a.tar", SMALL)
    content = path.read_bytes()
    for at in places_in(content):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            dataset = SampleDataset.from_tar(path, fields=("jpg?",), index=False,
                                             return_key=True, pool=None, direct="off")  # fmt: skip
            found = read_samples(dataset)
        except DataError:
            continue
        assert found == [
            (key, {"jpg": fields.get("jpg", b"")}) for key, fields in samples_of([path])
        ]
