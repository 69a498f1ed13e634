"""Which files a pattern means: against Python's own glob and fnmatch."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import socket

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from programs import run_program

from torch_s3io import _C, ConfigError, DataError, NotFoundError
from torch_s3io.store.file_columns import FileColumns, FilePattern, changed_folder


def paths_of(columns: FileColumns) -> list[str]:
    text, begin, paths = columns.paths.tobytes(), 0, []
    for end in columns.path_ends.tolist():
        paths.append(os.fsdecode(text[begin:end]))
        begin = end
    return paths


def scan(folder, names: str) -> list[str]:
    return paths_of(FilePattern(str(folder), names).scan()[0])


def found(folder, names: str) -> list[str]:
    """The same below the folder; nothing where there is none."""
    try:
        return [path.removeprefix(f"{folder}/") for path in scan(folder, names)]
    except NotFoundError:
        return []


def globbed(folder, names: str) -> list[str]:
    matches = glob.glob(f"{glob.escape(str(folder))}/{names}", recursive=True)
    # Of `b/**` it gives "b/", whatever b is.
    there = [match for match in matches if os.path.lexists(match) and not os.path.isdir(match)]
    files = {os.path.normpath(match) for match in there}
    return [path.removeprefix(f"{folder}/") for path in sorted(files, key=os.fsencode)]


def write(folder, *names: str) -> None:
    for name in names:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name.encode("utf-8", "surrogateescape"))


NAMES = st.text("ab.*[", min_size=1, max_size=3).filter(lambda name: name.strip("."))
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8)
PARTS = st.sampled_from(
    ["**", "*", "a", "a*", ".*", "?", "*.b", "b", "[ab]*", "**a", ".", "", "[[]"]
)
PATTERNS = (
    st.lists(PARTS, min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda one: one[:1] not in ("", "/"))
)


@settings(max_examples=60)
@given(TREES, PATTERNS)
@example(["a", "a/b", "a/b.b"], "**/**/*.b")
@example([".a/b/a", "b/.a", "b/a"], "**/a")
def test_a_pattern_means_what_glob_finds(tmp_path_factory, names, pattern):
    folder = tmp_path_factory.mktemp("tree")
    for name in names:
        try:
            write(folder, name)
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            continue  # a file of this name is there, or a folder
    assert found(folder, pattern) == globbed(folder, pattern)


ALPHABET = ["a", "b", "-", "]", "[", "!", "^", "\\", "é", "\udce9", "\U0001f600", ".", "\n", "&"]


@pytest.fixture(scope="module")
def all_names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    names = ["".join(some) for size in (1, 2) for some in itertools.product(ALPHABET, repeat=size)]
    write(folder, *(name for name in names if name not in (".", "..")))
    return folder


@settings(max_examples=150)
@given(st.text(["*", "?", *ALPHABET, "[", "]", "-"], min_size=1, max_size=7))
@example("[a-b]")
@example("[!a-b]*")
@example("[]-a]")
@example("[b-a]")
@example("[!b-a]")
@example("[a-b-é]")
@example("[--]]")
@example("*[*")
@example("\udce9*")
@example("[\\-é]?")
def test_names_match_as_with_fnmatch(all_names, pattern):
    if pattern in (".", ".."):
        return
    names = fnmatch.filter(os.listdir(all_names), pattern)
    if not pattern.startswith("."):
        names = [name for name in names if not name.startswith(".")]
    if pattern == "**":
        names = [name for name in os.listdir(all_names) if not name.startswith(".")]
    assert found(all_names, pattern) == sorted(names, key=os.fsencode)


def test_many_files_in_one_folder_come_in_the_order_of_their_bytes(tmp_path):
    names = [f"{number * 7919 % 5000}.jpg" for number in range(5000)]
    write(tmp_path, *names, "other.txt", "below/0.jpg", "below/1.txt")
    expected = sorted([*names, "below/0.jpg"])
    files, folders = FilePattern(str(tmp_path), "**/*.jpg").scan()
    assert paths_of(files) == [f"{tmp_path}/{name}" for name in expected]
    status = [os.stat(path) for path in paths_of(files)]
    assert files.versions[:, 1:].tolist() == [[s.st_ino, s.st_size, s.st_mtime_ns] for s in status]
    assert sorted(paths_of(folders)) == [str(tmp_path), f"{tmp_path}/below"]


def test_names_of_all_bytes_and_of_255(tmp_path):
    names = ["new\nline.jpg", "'quote\".jpg", "\udcff\udcfe.jpg", "x" * 251 + ".jpg", "é.jpg"]
    write(tmp_path, *names)
    assert found(tmp_path, "*.jpg") == sorted(names, key=os.fsencode) == globbed(tmp_path, "*.jpg")


# ---- Links, and what is no file.


def test_links_to_files_and_folders_are_followed_as_in_the_hugging_face_cache(tmp_path):
    write(tmp_path, "blobs/0", "blobs/1", "other/2.jpg")
    snapshot = tmp_path / "snapshots" / "abc" / "train"
    snapshot.mkdir(parents=True)
    for number in range(2):
        (snapshot / f"{number}.jpg").symlink_to(f"../../../blobs/{number}")
    (snapshot / "more").symlink_to("../../../other")
    assert found(tmp_path / "snapshots", "**/*.jpg") == [
        "abc/train/0.jpg", "abc/train/1.jpg", "abc/train/more/2.jpg",
    ]  # fmt: skip
    files, _ = FilePattern(str(snapshot), "0.jpg*").scan()
    assert files.versions[0, 1] == (tmp_path / "blobs/0").stat().st_ino


def test_a_folder_within_itself_ends(tmp_path):
    write(tmp_path, "a/b/x.jpg")
    (tmp_path / "a" / "b" / "top").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "other").symlink_to("b")
    assert found(tmp_path, "**/*.jpg") == ["a/b/x.jpg", "a/other/x.jpg"]


def test_folders_that_link_to_each_other_end(tmp_path):
    for count in (2, 3, 9):
        top = tmp_path / f"{count}"
        write(top, *(f"{number}/x.jpg" for number in range(count)))
        for one, other in itertools.permutations(range(count), 2):
            (top / f"{one}" / f"to{other}").symlink_to(top / f"{other}")
    assert len(scan(tmp_path / "2", "**/*.jpg")) == 4
    assert len(scan(tmp_path / "3", "**/*.jpg")) == 15  # each path that enters no folder twice
    with pytest.raises(DataError, match=r"more than 100 paths lead to this folder.*remove links"):
        scan(tmp_path / "9", "**/*.jpg")
    assert len(scan(tmp_path / "9", "*/*.jpg")) == 9


def test_a_link_to_nothing_is_named(tmp_path):
    write(tmp_path, "x.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "folder").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match=r"gone\.jpg: is a link to a file that is not there"):
        scan(tmp_path, "**/*.jpg")
    assert found(tmp_path, "**/x*") == ["x.jpg"]


def test_what_is_no_file_is_refused_where_the_pattern_means_it(tmp_path):
    write(tmp_path, "x.jpg")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
    with pytest.raises(ConfigError, match="fifo: is a FIFO, not a regular file"):
        scan(tmp_path, "f*")
    with pytest.raises(ConfigError, match="socket: is a device or a socket"):
        scan(tmp_path, "s*")
    assert found(tmp_path, "**/*.jpg") == ["x.jpg"]


def test_a_pattern_that_matches_nothing_says_what_a_pattern_is(tmp_path):
    with pytest.raises(NotFoundError, match=r"no file matches this pattern, in which \*"):
        scan(tmp_path, "**/*.jpg")
    with pytest.raises(NotFoundError, match="cannot list the folder"):
        scan(tmp_path / "missing", "*.jpg")
    with pytest.raises(ConfigError, match=r"has a '\.\.' behind a wildcard"):
        scan(tmp_path, "*/../x")
    with pytest.raises(ConfigError, match="more than 64 parts"):
        scan(tmp_path, "*/" * 64 + "x")


def test_a_folder_that_may_not_be_listed_is_an_error(public_folder, needs_root):
    write(public_folder, "open/x.jpg", "closed/x.jpg")
    (public_folder / "closed").chmod(0o711)
    source = """
        import sys
        from programs import become_nobody
        from torch_s3io import AccessError
        from torch_s3io.store.file_columns import FilePattern

        become_nobody()
        print(len(FilePattern(sys.argv[1], "open/*.jpg").scan()[0]))
        try:
            FilePattern(sys.argv[1], "**/*.jpg").scan()
        except AccessError as error:
            print(error)
    """
    output = run_program(source, public_folder)
    assert output.startswith(f"1\n{public_folder}/closed: cannot list the folder: EACCES")


# ---- How it goes, and what has changed since.


def test_progress_counts_and_may_end_it(tmp_path):
    write(tmp_path, *(f"{number % 10}/{number}.jpg" for number in range(100)))
    pattern, told = FilePattern(str(tmp_path), "**/*.jpg"), []
    pattern.scan(progress=lambda files, folders: told.append((files, folders)))
    assert told[-1] == (100, 11)

    def stop(files, folders):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pattern.scan(progress=stop)


def test_a_folder_that_has_changed_is_found(tmp_path):
    write(tmp_path, *(f"{number}/x.jpg" for number in range(200)))
    _, folders = FilePattern(str(tmp_path), "**/*.jpg").scan(settles=True)
    paths, times = paths_of(folders), folders.versions[:, 3].astype(np.int64)
    assert changed_folder(folders.paths, folders.path_ends, times) == -1
    write(tmp_path, "150/y.jpg")
    number = changed_folder(folders.paths, folders.path_ends, times)
    assert paths[number] == f"{tmp_path}/150"
    (tmp_path / "3" / "x.jpg").unlink()
    (tmp_path / "3").rmdir()
    number = changed_folder(folders.paths, folders.path_ends, times)
    assert paths[number] in (str(tmp_path), f"{tmp_path}/3", f"{tmp_path}/150")


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_a_number_of_threads_that_is_none_is_refused(tmp_path, threads):
    with pytest.raises(ConfigError, match="1 to 1024 threads"):
        _C.scan_folder(
            folder=str(tmp_path), pattern="*", threads=threads, settles=False, progress=None
        )


def test_a_folder_with_more_names_than_may_wait_is_listed_as_a_whole(tmp_path):
    names = [f"{number:04}" for number in range(7000)]
    write(tmp_path, *names)
    files, _ = _C.scan_folder(
        folder=str(tmp_path), pattern="*", threads=1, settles=False, progress=None
    )
    assert paths_of(FileColumns.of(files)) == [f"{tmp_path}/{name}" for name in names]
