"""Tar archives of other programs: what is found is what CPython's tarfile finds."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sysconfig
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_s3io import _C
from torch_s3io.errors import DataError, Error, FileChangedError, NotFoundError
from torch_s3io.format.tar.tar_members import scan_tars
from torch_s3io.store.local_files import LocalFiles

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
SHORT = [
    "0.jpg",
    "folder/1.cls",
    "with blank.txt",
    "a\nb'\"\\.txt",
    "é.jpg",
    "\udcff\udcfe.bin",
    "x.",
]
LONG = ["n" * 101, "p" * 150 + "/" + "n" * 99, "/".join(["d" * 50] * 5) + "/é.jpg", "q" * 300]


def store(direct: str = "auto") -> _C.FileObjects:
    alignment = 4096 if direct == "auto" else 1
    return _C.FileObjects(direct=direct, engine="auto", alignment=alignment, faults=None)


def found_in(path: Path, direct: str = "off") -> list[tuple[bytes, int, int]]:
    """(name, offset, size) of each file, as the scan says."""
    (members,) = scan_tars(store(direct), [str(path)], depth=1).members
    ends = members.name_ends.tolist()
    begins = [0, *ends][: len(ends)]
    names = [members.names[begin:end].tobytes() for begin, end in zip(begins, ends, strict=True)]
    return list(zip(names, members.offsets.tolist(), members.sizes.tolist(), strict=True))


def expected_in(path: Path) -> list[tuple[bytes, int, int]]:
    """The same, as tarfile says."""
    found = []
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if member.isreg() or member.islnk():
                file = member
                while file.islnk():
                    file = archive._find_link_target(file)
                found.append((os.fsencode(member.name), file.offset_data, file.size))
    return found


def write_tar(path: Path, files: dict[str, bytes], format: int, **more) -> Path:
    with tarfile.open(path, "w", format=format, errors="surrogateescape", **more) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if format == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(data))
    return path


def data_of(name: str) -> bytes:
    return os.fsencode(name) * (len(name) % 7 * 20)


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_tarfile_are_found(tmp_path, format):
    names = SHORT + (LONG if format != "ustar" else LONG[1:2])
    files = {name: data_of(name) for name in names}
    path = write_tar(tmp_path / "a.tar", files, FORMATS[format])
    found = found_in(path)
    assert found == found_in(path, "auto") == expected_in(path)
    content = path.read_bytes()
    assert {
        os.fsdecode(name): content[begin : begin + size] for name, begin, size in found
    } == files


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "pax", "posix"])
def test_files_of_gnu_tar_are_found(tmp_path, format):
    if shutil.which("tar") is None:
        pytest.skip("NEEDS GNU TAR")
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for name in SHORT if format in ("v7", "ustar") else [*SHORT, LONG[0]]:
        (folder / name.replace("folder", "below")).write_bytes(data_of(name))
    if format != "v7":
        os.mkfifo(folder / "fifo")
    os.link(folder / "0.jpg", folder / "below" / "link.jpg")
    path = tmp_path / "a.tar"
    command = ["tar", f"--format={format}", "--sort=name", "-cf", path, "-C", tmp_path, "folder"]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"NEEDS GNU TAR: {made.stderr}")
    found = found_in(path)
    assert found == expected_in(path)
    places = {name: place for name, *place in found}
    assert places[b"folder/below/link.jpg"] == places[b"folder/0.jpg"]


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))],
)
def test_sparse_files_are_refused_by_name(tmp_path, options):
    if shutil.which("tar") is None:
        pytest.skip("NEEDS GNU TAR")
    (tmp_path / "hole.bin").write_bytes(b"x")
    os.truncate(tmp_path / "hole.bin", 1 << 20)
    path = tmp_path / "a.tar"
    subprocess.run(["tar", *options, "-S", "-cf", path, "-C", tmp_path, "hole.bin"], check=True)
    with pytest.raises(DataError, match=r"a\.tar: member 'hole\.bin' at byte \d+ is a sparse file"):
        found_in(path)


def test_a_symbolic_link_is_refused_by_name(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "0.jpg"
        archive.addfile(info)
    with pytest.raises(
        DataError, match=r"'1\.jpg' at byte 0 is a symbolic link to '0\.jpg'.*deref"
    ):
        found_in(path)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_compressed_archives_are_refused_with_what_to_do(tmp_path, suffix):
    path = tmp_path / f"a.tar.{suffix}"
    with tarfile.open(path, f"w:{suffix}") as archive:
        archive.addfile(tarfile.TarInfo("0.jpg"))
    with pytest.raises(DataError, match=r"is compressed by .*: decompress it"):
        found_in(path)


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_members_beyond_8_gib_are_found(tmp_path, format):
    path = tmp_path / "a.tar"
    size = (9 << 30) + 7
    info = tarfile.TarInfo("huge.bin")
    info.size = size
    with path.open("wb") as file:
        file.write(info.tobuf(FORMATS[format]))
        begin = file.tell()
        file.seek(begin + (size + 511) // 512 * 512)  # a hole
        file.write(tarfile.TarInfo("last.txt").tobuf(FORMATS[format]))
        last = file.tell()
    assert found_in(path) == [(b"huge.bin", begin, size), (b"last.txt", last, 0)]
    assert found_in(path) == expected_in(path)


def archive_of_cpython() -> Path:
    folder = Path(sysconfig.get_path("stdlib")) / "test"
    for path in (folder / "testtar.tar", folder / "archivetestdata" / "testtar.tar"):
        if path.exists():
            return path
    pytest.skip("NEEDS THE TESTS OF CPYTHON: test/testtar.tar")


def test_the_members_of_cpythons_testtar_are_found_or_refused_by_name(tmp_path):
    path = archive_of_cpython()
    content = path.read_bytes()
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        members = archive.getmembers()
    right, refused = b"", 0
    ends = [*(member.offset for member in members[1:]), archive.offset]
    for member, end in zip(members, ends, strict=True):
        if not member.issym() and member.sparse is None:
            right += content[member.offset : end]
            continue
        refused += 1
        single = tmp_path / "single.tar"
        single.write_bytes(content[member.offset : end])
        with pytest.raises(DataError, match=r"a symbolic link|a sparse file") as caught:
            found_in(single)
        assert f"member '{member.name}' at" in str(caught.value)
    assert refused == 7
    whole = tmp_path / "whole.tar"
    whole.write_bytes(right + bytes(1024))
    found = found_in(whole)
    assert found == expected_in(whole)
    assert len(found) > 20


name_of_a_file = st.one_of(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(SHORT + LONG),
    st.integers(90, 260).map(lambda length: "n" * length),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    files=st.dictionaries(name_of_a_file, st.integers(0, 3000), max_size=8),
    format=st.sampled_from(["gnu", "pax"]),
    end=st.integers(0, 1024),
    links=st.lists(st.tuples(st.integers(0, 7), name_of_a_file), max_size=3),
    headers=st.dictionaries(st.sampled_from(["comment", "VENDOR.key"]), st.text(max_size=9)),
)
def test_any_archive_is_read_as_tarfile_reads_it(tmp_path, files, format, end, links, headers):
    path = tmp_path / "a.tar"
    more = {"pax_headers": headers} if format == "pax" else {}
    with tarfile.open(path, "w", format=FORMATS[format], **more) as archive:
        for name, size in files.items():
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(b"d" * size))
        for target, name in links:
            if target < len(files):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.LNKTYPE, list(files)[target]
                archive.addfile(info)
        behind = archive.offset
    if files or end == 1024:  # tarfile finds no archive in less
        os.truncate(path, behind + end)
        assert found_in(path) == expected_in(path)


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_that_is_cut_anywhere_is_refused_or_gives_what_lies_before(tmp_path, format):
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"a" * 600, "é" * 3: b"b"}, FORMATS[format])
    content, whole = path.read_bytes(), found_in(path)
    last = whole[-1][1] + whole[-1][2]
    ends, texts = [], []
    for cut in [len(content), *reversed(range(last + 1600))]:
        os.truncate(path, cut)
        try:
            found = found_in(path)
        except DataError as error:
            texts.append(str(error))
        else:
            ends.append(cut)
            assert found == [member for member in whole if member[1] + member[2] <= cut]
    assert all(str(path) in text for text in texts)
    first = whole[0][1] + whole[0][2]
    boundary = (first + 511) // 512 * 512
    # Between the members, and at the end of the last one, nothing can be seen to be missing.
    assert ends == [*range(first, boundary + 1), *range(last, last + 1600), len(content)][::-1]


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_with_any_byte_changed_is_refused_or_read_as_tarfile_reads_it(tmp_path, format):
    path = write_tar(
        tmp_path / "a.tar", {"0.jpg": b"a" * 6, "é" * 20 + "/" + "n" * 99: b"b"}, FORMATS[format]
    )
    content, whole = path.read_bytes(), found_in(path)
    end = whole[-1][1] + 1536
    wrong = []
    with path.open("r+b", buffering=0) as file:
        for at in range(end):
            os.pwrite(file.fileno(), bytes([content[at] ^ 1 << at % 8]), at)
            try:
                if found_in(path) not in (whole, expected_in(path)):
                    wrong.append(at)
            except DataError:
                pass
            os.pwrite(file.fileno(), content[at : at + 1], at)
    assert wrong == []


def test_many_archives_are_read_at_once_with_progress(tmp_path):
    paths = [
        write_tar(tmp_path / f"{number}.tar", {f"{i}.txt": b"t" * i for i in range(number)}, 1)
        for number in range(50)
    ]
    calls = []
    scan = scan_tars(store(), list(map(str, paths)), progress=lambda *now: calls.append(now))
    assert [len(members) for members in scan.members] == list(range(50))
    assert calls[-1] == (50, sum(path.stat().st_size for path in paths))
    assert 50 <= scan.reads < 300
    assert not scan.members[5].offsets.flags.writeable

    def give_up(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_tars(store(), list(map(str, paths)), progress=give_up)


def test_archives_that_are_missing_or_changed_are_errors(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.txt": b"t"}, tarfile.GNU_FORMAT)
    version = LocalFiles().inspect([str(path)])[0].identity
    assert len(scan_tars(store(), [str(path)], [version]).members[0]) == 1
    with path.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(FileChangedError):
        scan_tars(store(), [str(path)], [version])
    with pytest.raises(NotFoundError):
        scan_tars(store(), [str(tmp_path / "missing.tar")])
    with pytest.raises(Error):
        scan_tars(store(), [str(tmp_path)])
