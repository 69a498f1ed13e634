"""Members of archives as samples: webdataset's rule, and what it passes over in silence."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torch_s3io import _C
from torch_s3io.errors import DataError
from torch_s3io.format.tar.tar_members import TarSamples, group_members, scan_tars


def scan(path: Path) -> _C.TarMembers:
    store = _C.FileObjects(direct="off", engine="auto", alignment=1, faults=None)
    return scan_tars(store, [str(path)], depth=1).members[0]


def write_tar(path: Path, names: list[str]) -> Path:
    """Each member has its number as its data."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(str(number))
            archive.addfile(info, io.BytesIO(str(number).encode()))
    return path


def group(path: Path) -> TarSamples:
    return group_members(str(path), scan(path))


def keys_of(samples: TarSamples) -> list[str]:
    ends, keys = samples.key_ends.tolist(), samples.keys.tobytes()
    begins = [0, *ends][: len(ends)]
    return [
        keys[begin:end].decode("utf-8", "surrogateescape")
        for begin, end in zip(begins, ends, strict=True)
    ]


def values_in(path: Path, samples: TarSamples) -> list[tuple[str, dict[str, bytes]]]:
    content = path.read_bytes()
    found: list[tuple[str, dict[str, bytes]]] = [(key, {}) for key in keys_of(samples)]
    columns = (samples.samples, samples.fields, samples.starts, samples.lengths)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for sample, field, start, length in rows:
        found[sample][1][samples.extensions[field]] = content[start : start + length]
    return found


def expected_of(names: list[str]) -> list[tuple[str, dict[str, bytes]]] | None:
    """By the regular expressions of webdataset. None: an error."""
    samples: list[tuple[str, dict[str, bytes]]] = []
    for number, name in enumerate(names):
        if "/" not in name and name.startswith("__") and name.endswith("__"):
            continue
        if re.match(r"__[^/]*__($|/)", name):
            continue
        match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
        if match is None:
            continue
        key, field = match[1], match[2].lower()
        if not samples or samples[-1][0] != key:
            if any(key == other for other, _ in samples):
                return None
            samples.append((key, {}))
        if field in samples[-1][1]:
            return None
        samples[-1][1][field] = str(number).encode()
    return samples


def check(path: Path, names: list[str]) -> None:
    expected = expected_of(names)
    write_tar(path, names)
    if expected is None:
        with pytest.raises(DataError, match=r"a\.tar: "):
            group(path)
        return
    samples = group(path)
    found = sorted({field for _, fields in expected for field in fields})
    assert list(samples.extensions) == found
    assert values_in(path, samples) == expected


def test_the_key_ends_at_the_first_dot_of_the_base_name(tmp_path):
    names = ["22.05.png", "dir.v1/s0.jpg", "dir.v1/noext", "._0001.jpg", "./0001.JPG", "x.", "y"]
    path = write_tar(tmp_path / "a.tar", [*names, "a/.hidden.txt"])
    assert values_in(path, group(path)) == [
        ("22", {"05.png": b"0"}),
        ("dir.v1/s0", {"jpg": b"1"}),
        ("./0001", {"jpg": b"4"}),
        ("x", {"": b"5"}),
        ("a/", {"hidden.txt": b"7"}),
    ]


def test_fields_may_be_missing_and_others_may_be_there(tmp_path):
    path = write_tar(tmp_path / "a.tar", ["0.jpg", "0.cls", "0.json", "1.jpg", "2.txt"])
    samples = group(path)
    assert samples.extensions == ("cls", "jpg", "json", "txt")
    assert len(samples) == 3
    assert [sorted(fields) for _, fields in values_in(path, samples)] == [
        ["cls", "jpg", "json"],
        ["jpg"],
        ["txt"],
    ]


def test_a_key_that_comes_again_is_an_error_that_names_both(tmp_path):
    path = write_tar(tmp_path / "a.tar", ["0.a", "1.a", "0.b", "1.b"])
    with pytest.raises(
        DataError, match=r"sample '0'.*'0\.a' lies at byte 512, '0\.b' at byte 2560"
    ):
        group(path)


def test_a_field_twice_is_an_error_that_names_both(tmp_path):
    path = write_tar(tmp_path / "a.tar", ["0.jpg", "1.jpg", "1.cls", "1.JPG"])
    with pytest.raises(DataError, match=r"'1\.jpg' at byte 1536 and '1\.JPG' at byte 3584"):
        group(path)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["readme"],
        ["__meta__", "__meta__/0.jpg", "a/__meta__/0.jpg", "__a__b.jpg", "__.jpg", "__", "___"],
        ["____", "____/x.y", "__a__\n", "__a__\n\n", "__\n", "___\n", "__a.b__"],
        ["a\nb/c.d", "a.\n/c.d", "a\n.b/c.d", "\n/.b", "a\n/b\n.c\n", "a/b\n/.c"],
        ["/.a", "//.a", "a/b/.c", "a.b/c/.d", "a.b/.c", ".a/.b", "a//b.c", "..a", "a..b"],
        ["\udcff.\udcfe", "é.É", "é.é"],
        ["x.İ", "x.ß", "X.ß"],
    ],
)
def test_names_of_all_kinds_are_split_as_webdataset_does(tmp_path, names):
    for name in names:
        check(tmp_path / "a.tar", [name])
    check(tmp_path / "a.tar", names)


@given(
    st.lists(
        st.one_of(
            st.text("._/a\nB", min_size=1, max_size=9),
            st.tuples(st.sampled_from("01/."), st.sampled_from(["a", "B", "b.c", ""])).map(
                ".".join
            ),
        ).filter(lambda name: name.strip("/") and not name.endswith("/")),
        max_size=9,
    )
)
@example(["0.a", "0.b", "1.a", "1.b"])
def test_any_names_are_grouped_as_webdataset_does(tmp_path, names):
    check(tmp_path / "a.tar", names)


def test_places_are_those_of_the_members(tmp_path):
    names = [f"{n // 2}.{('cls', 'jpg')[n % 2]}" for n in range(1000)]
    path = write_tar(tmp_path / "a.tar", names)
    members = scan(path)
    samples = group_members(str(path), members)
    assert samples.starts.tolist() == members.offsets.tolist()
    assert samples.samples.tolist() == [n // 2 for n in range(1000)]
    assert samples.fields.tolist() == [n % 2 for n in range(1000)]
    assert keys_of(samples) == [str(n) for n in range(500)]
    assert not samples.keys.flags.writeable


def test_what_webdataset_writes_is_read_as_webdataset_reads_it(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="NEEDS WEBDATASET")
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for number in range(50):
            sample = {"__key__": f"folder/{number:05}", "jpg": b"j" * (number * 37)}
            writer.write(sample | ({"cls": str(number).encode()} if number % 3 else {}))
    with path.open("rb") as file:
        files = list(webdataset.tariterators.tar_file_iterator(file))
    for one in files:
        one["__url__"] = ""
    expected = [
        (one.pop("__key__"), {name: one[name] for name in one if not name.startswith("__")})
        for one in webdataset.tariterators.group_by_keys(files)
    ]
    assert len(expected) == 50
    assert values_in(path, group(path)) == expected
    assert len(scan(path)) == len(files)


@given(st.lists(st.text("._/a\nB", min_size=1, max_size=12), max_size=20))
def test_names_are_split_as_webdatasets_own_code_does(tmp_path, names):
    webdataset = pytest.importorskip("webdataset", reason="NEEDS WEBDATASET")
    for name in names:
        if name.strip("/") and not name.endswith("/"):
            path = write_tar(tmp_path / "a.tar", [name])
            key, field = webdataset.tariterators.base_plus_ext(name)
            with path.open("rb") as file:
                is_read = list(webdataset.tariterators.tar_file_iterator(file)) != []
            samples = group(path)
            expected = [] if key is None or not is_read else [key]
            assert keys_of(samples) == expected
            assert not expected or samples.extensions == (field.lower(),)
