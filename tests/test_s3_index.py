"""Indexes in buckets: put there by ``index``, and read once by each machine."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, config_of, create_bucket, deny, named_by_environment, needs_s3, serving
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import FaultServer
from tar_files import Files, numbered, read_samples, samples_of, write_shards, write_tar
from token_files import joined
from token_files import numbered as numbered_tokens

import torch_s3io as s3io
from torch_s3io import SampleDataset, TokenDataset, cli
from torch_s3io.index.column_file import map_columns
from torch_s3io.index.place import index_places
from torch_s3io.store.s3_objects import the_s3_objects

pytestmark = needs_s3
FOLDER = f"s3://{BUCKET}/shards"
RECIPE = {"kind": "test", "version": 1}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


@pytest.fixture
def new_machine(tmp_path, monkeypatch) -> Callable[[], Path]:
    """The cache folder is a new one, which is given."""
    count = 0

    def change() -> Path:
        nonlocal count
        count += 1
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine{count}"))
        return tmp_path / f"machine{count}" / "torch_s3io"

    change()
    return change


@pytest.fixture
def shards(server, tmp_path, new_machine) -> list[Path]:
    """Of the files that are the objects below FOLDER."""
    files = write_shards(tmp_path)
    for file in files:
        server.buckets.put(BUCKET, f"shards/{file.name}", file.read_bytes())
    return files


def expected(files: list[Path]) -> list[tuple[str, Files]]:
    wanted = ("jpg", "cls")
    return [(key, {name: data[name] for name in wanted}) for key, data in samples_of(files)]


def read(paths: Any = f"{FOLDER}/*.tar", **options: Any) -> list[tuple[str, Files]]:
    dataset = SampleDataset.from_tar(paths, fields=("jpg", "cls"), return_key=True, **options)
    return read_samples(dataset)


def index_keys(server: FaultServer) -> list[str]:
    return [key for bucket, key in server.buckets.objects if key.endswith(".idx")]


def asked_of(server: FaultServer, name: str) -> list[str]:
    """Methods of the requests whose paths have this in them, but for the question whether the
    server heeds versions."""
    return [
        one.method
        for one in server.requests
        if name in one.path and one.headers.get("if-match") != '"of-no-version"'
    ]


def make_index(*more: str) -> None:
    assert cli.main(["index", f"{FOLDER}/*.tar", *more]) == 0


def test_what_the_command_puts_beside_the_shards_another_machine_reads(
    server, shards, new_machine, capsys, monkeypatch
):
    make_index()
    [key] = index_keys(server)
    assert key.startswith("shards/.torch_s3io-tar-")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"s3://{BUCKET}/{key}, of which this machine has a copy:"
    assert Path(shown[1]).read_bytes() == server.buckets.objects[BUCKET, key].data
    assert "as the data are" in shown[2]
    cache = new_machine()
    server.requests.clear()
    with monkeypatch.context() as patch:
        patch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
        SampleDataset.from_tar(f"{FOLDER}/*.tar", fields=("jpg",))
        assert asked_of(server, ".idx") == ["HEAD", "GET"]
        assert read() == read(FOLDER) == expected(shards)
    [copy] = cache.iterdir()
    assert copy.read_bytes() == server.buckets.objects[BUCKET, key].data
    assert asked_of(server, ".idx") == ["HEAD", "GET"]
    assert [one.method for one in server.requests if one.method not in ("GET", "HEAD")] == []


def test_without_one_a_data_set_asks_once_and_puts_nothing(server, shards, new_machine):
    assert read() == expected(shards)
    assert asked_of(server, ".idx") == ["HEAD"]
    assert read() == expected(shards)
    assert asked_of(server, ".idx") == ["HEAD"]
    assert index_keys(server) == []
    new_machine()
    deny(server, "HEAD", ".idx")  # as who may not list objects is told of a missing one
    assert read() == expected(shards)
    assert read(index=False) == expected(shards)
    assert asked_of(server, ".idx") == ["HEAD"] * 2


def test_it_holds_for_a_copy_of_shards_and_index(server, shards, new_machine, monkeypatch):
    make_index()
    for bucket, key in list(server.buckets.objects):
        data = server.buckets.objects[bucket, key].data
        server.buckets.put("others", key.replace("shards/", "a copy/of them/"), data)
    new_machine()
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    assert read("s3://others/a copy/of them/*.tar") == expected(shards)


def test_after_a_shard_has_changed_it_alone_is_read_again(server, shards, new_machine):
    make_index()
    [key] = index_keys(server)
    put = server.buckets.objects[BUCKET, key].data
    write_tar(shards[1], numbered(12, 500))
    server.buckets.put(BUCKET, f"shards/{shards[1].name}", shards[1].read_bytes())
    new_machine()
    server.requests.clear()
    with pytest.warns(RuntimeWarning, match=rf"{key}: the data have changed .* torch_s3io index`"):
        dataset = SampleDataset.from_tar(f"{FOLDER}/*.tar", fields=("jpg", "cls"), return_key=True)
    assert asked_of(server, "000.tar") == asked_of(server, "002.tar") == []
    assert asked_of(server, "001.tar") != []
    assert read_samples(dataset) == expected(shards)
    assert server.buckets.objects[BUCKET, key].data == put
    make_index()
    assert server.buckets.objects[BUCKET, key].data != put
    new_machine()
    assert read() == expected(shards)


@pytest.mark.parametrize("what", ["folder", "pattern", "index"])
def test_info_shows_the_indexes_of_a_bucket(server, shards, new_machine, capsys, what):
    make_index()
    [key] = index_keys(server)
    path = f"s3://{BUCKET}/{key}"
    named = {"folder": f"{FOLDER}/", "pattern": f"{FOLDER}/*.tar", "index": path}[what]
    cache = new_machine()
    capsys.readouterr()
    assert cli.main(["info", named]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == path
    assert shown[1].startswith("  index        of tar archives, ")
    assert shown[1].endswith("as the data are")
    assert cli.main(["info", named, "--json"]) == 0
    [facts] = json.loads(capsys.readouterr().out)
    size = len(server.buckets.objects[BUCKET, key].data)
    assert (facts["path"], facts["size_bytes"], facts["is_current"]) == (path, size, True)
    server.buckets.put(BUCKET, f"shards/{shards[0].name}", shards[1].read_bytes())
    assert cli.main(["info", named]) == 0
    assert "STALE" in capsys.readouterr().out
    server.buckets.put(BUCKET, key, b"no index")
    assert cli.main(["info", named]) == 1
    assert f"{path}: it has 8 bytes, fewer than any index" in capsys.readouterr().err
    assert not cache.exists()


def test_info_of_a_folder_without_an_index_says_that_it_is_no_data_set(server, shards, capsys):
    assert cli.main(["info", FOLDER]) == 1
    assert FOLDER in capsys.readouterr().err


def flipped(data: bytes, column: str, path: Path) -> bytes:
    """One bit of this column is another one."""
    path.write_bytes(data)
    at = data.rindex(map_columns(str(path)).columns[column].tobytes())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def damaged(damage: str, data: bytes, tmp_path: Path) -> bytes:
    if damage in ("starts", "versions"):
        return flipped(data, damage, tmp_path / "x.idx")
    if damage == "of_others":
        others = [write_tar(tmp_path / f"{number}.tar", numbered(3)) for number in range(3)]
        SampleDataset.from_tar(others, fields=("jpg",), index=tmp_path / "others.idx")
        return (tmp_path / "others.idx").read_bytes()
    return {
        "cut": data[:-100],
        "empty": b"",
        "longer": data + b"more",
        "other": bytes(len(data)),
        "head": data[:100] + bytes([data[100] ^ 1]) + data[101:],
        "huge": data + bytes(1 << 20),
    }[damage]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("cut", "it has .* bytes, not .*: it was cut off"),
        ("empty", "it has 0 bytes, fewer than any index"),
        ("longer", "it has .* bytes, not"),
        ("other", "is no index of torch_s3io"),
        ("starts", "the checksum of column 'starts'"),
        ("versions", "the checksum of column 'versions'"),
        ("head", "the checksum of its head"),
        ("huge", "has 1.05 MB, more than any index of these data"),
        ("of_others", "the data have changed"),
    ],
)
def test_a_damaged_one_is_told_of_and_made_anew(
    server, shards, new_machine, tmp_path, damage, said, monkeypatch
):
    make_index()
    [key] = index_keys(server)
    data = server.buckets.objects[BUCKET, key].data
    bad = damaged(damage, data, tmp_path)
    monkeypatch.setattr("torch_s3io.index.in_bucket._ALWAYS_READ_BYTES", 0)
    server.buckets.put(BUCKET, key, bad)
    cache = new_machine()
    server.requests.clear()
    with pytest.warns(RuntimeWarning, match=rf"{key}: {said}"):
        dataset = SampleDataset.from_tar(f"{FOLDER}/*.tar", fields=("jpg", "cls"), return_key=True)
    expected_requests = ["HEAD"] if damage in ("huge", "empty") else ["HEAD", "GET"]
    assert asked_of(server, ".idx") == expected_requests
    assert read_samples(dataset) == expected(shards)
    [made] = cache.iterdir()
    assert made.read_bytes() == data
    assert read() == expected(shards)
    make_index()
    assert server.buckets.objects[BUCKET, key].data == data


def test_a_server_that_does_not_send_it_is_told_of(server, shards, new_machine):
    make_index()
    [key] = index_keys(server)

    def fail(reply: Reply, request: Request) -> Reply:
        is_hit = request.method == "GET" and ".idx" in request.path
        return error(500, "InternalError") if is_hit else reply

    server.fault = fail
    new_machine()
    s3io.open_store(FOLDER, config_of(server.endpoint, max_attempts=2))
    with pytest.warns(RuntimeWarning, match=rf"of no use: .*{key}"):
        assert read() == expected(shards)


def test_one_that_is_replaced_while_it_is_read_is_not_mixed(
    server, shards, new_machine, monkeypatch
):
    monkeypatch.setattr("torch_s3io.index.in_bucket._PIECE_BYTES", 1000)
    make_index()
    [key] = index_keys(server)
    right = server.buckets.objects[BUCKET, key].data
    new_machine()
    server.requests.clear()
    assert read() == expected(shards)
    assert asked_of(server, ".idx") == ["HEAD", *["GET"] * -(-len(right) // 1000)]

    def replace_it(reply: Reply, request: Request) -> Reply:
        if request.method == "GET" and ".idx" in request.path:
            server.buckets.put(BUCKET, key, bytes(len(right)))
        return reply

    server.fault = replace_it
    cache = new_machine()
    with pytest.warns(RuntimeWarning, match=rf"of no use: .*{key}: the checksum of"):
        assert read() == expected(shards)
    [made] = cache.iterdir()
    assert made.read_bytes() == right


def test_of_programs_that_begin_at_once_one_reads_it(server, shards, new_machine, monkeypatch):
    make_index()
    new_machine()
    server.requests.clear()
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    begins, counts = threading.Barrier(4), []

    def work() -> None:
        begins.wait()
        counts.append(SampleDataset.from_tar(f"{FOLDER}/*.tar", fields=("jpg",)).num_records)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [30] * 4
    assert asked_of(server, ".idx") == ["HEAD", "GET"]


def test_keys_that_may_read_alone_keep_it_in_the_cache_folder(
    server, shards, new_machine, capsys, monkeypatch
):
    cache = new_machine()
    deny(server, "PUT", ".idx")
    make_index()
    shown = capsys.readouterr()
    [copy] = cache.iterdir()
    assert shown.out.splitlines()[0] == str(copy)
    assert "in the cache folder of this user alone: s3://tests/shards/.torch_s3io-tar-" in shown.err
    assert index_keys(server) == []
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    assert read() == expected(shards)


def test_the_same_index_is_not_put_again(server, shards, new_machine):
    make_index()
    new_machine()
    server.requests.clear()
    make_index()
    make_index()
    assert {one.method for one in server.requests} == {"GET", "HEAD"}
    [key] = index_keys(server)
    stored = server.buckets.objects[BUCKET, key]
    bad = replace(stored, data=stored.data[:-1] + b"x")  # of this machine's copy nothing is wrong
    for spoilt in (bad, replace(bad, checksum="")):  # which the server's checksum tells, or not
        server.buckets.objects[BUCKET, key] = spoilt
        make_index()
        assert server.buckets.objects[BUCKET, key].data == stored.data


def test_a_place_in_a_bucket_may_be_named(server, shards, new_machine, capsys, monkeypatch):
    place = "s3://others/indexes"
    make_index("--place", place)
    [(bucket, key)] = [one for one in server.buckets.objects if one[1].endswith(".idx")]
    assert (bucket, key.rpartition("/")[0]) == ("others", "indexes")
    assert capsys.readouterr().out.startswith(f"s3://others/{key}, of which")
    new_machine()
    with monkeypatch.context() as patch:
        patch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
        assert read(index=f"{place}/") == expected(shards)
    server.buckets.objects.pop((bucket, key))
    new_machine()
    assert read(index=place) == expected(shards)  # who names a bucket has the index put there
    assert (bucket, key) in server.buckets.objects
    server.buckets.objects.pop((bucket, key))
    server.requests.clear()
    assert read(index=place) == expected(shards)  # also where this machine has it already
    assert (bucket, key) in server.buckets.objects
    server.requests.clear()
    assert read(index=place) == expected(shards)
    assert asked_of(server, ".idx") == ["HEAD"]
    server.buckets.objects.pop((bucket, key))
    new_machine()
    deny(server, "PUT", ".idx")
    for _ in range(2):
        with pytest.raises(s3io.AccessError, match=r"index= cannot be written to, s3://others/ind"):
            read(index=place)
    assert cli.main(["index", f"{FOLDER}/*.tar", "--place", place]) == 1


@pytest.mark.parametrize("has_its_own", [False, True])
def test_the_bucket_of_index_is_reached_as_the_data_are(server, shards, new_machine, has_its_own):
    other = FaultServer()
    try:
        for file in shards:
            other.buckets.put("data", f"shards/{file.name}", file.read_bytes())
        if has_its_own:
            s3io.open_store("s3://indexes", config_of(server.endpoint))
        store = config_of(other.endpoint)
        found = read("s3://data/shards/*.tar", store=store, index="s3://indexes/i")
        assert found == expected(shards)
        numbers = [len(index_keys(one)) for one in (server, other)]
        assert numbers == ([1, 0] if has_its_own else [0, 1])
        the_s3_objects().forget()
    finally:
        other.close()


def test_one_that_cannot_be_put_for_a_moment_is_put_by_the_next_program(
    server, shards, new_machine, monkeypatch
):
    answer, place = server.answer, "s3://others/i"

    def fail(request: Request) -> Reply:
        is_put = request.method == "PUT" and ".idx" in request.path
        return error(500, "InternalError") if is_put else answer(request)

    s3io.open_store(place, config_of(server.endpoint, max_attempts=2))
    server.answer = fail
    paths, options = f"{FOLDER}/*.tar", {"fields": ("jpg", "cls"), "return_key": True}
    with pytest.warns(RuntimeWarning, match="the index is on this machine alone, and the next"):
        dataset = SampleDataset.from_tar(paths, **options, index=place)
    assert read_samples(dataset) == expected(shards)
    assert index_keys(server) == []
    server.answer = answer
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    assert read(index=place) == expected(shards)
    assert len(index_keys(server)) == 1
    new_machine()
    assert read(index=place) == expected(shards)


def test_a_stale_one_that_cannot_be_replaced_for_a_moment_is_replaced_by_the_next_program(
    server, shards, new_machine, monkeypatch
):
    place = "s3://others/i"
    s3io.open_store(place, config_of(server.endpoint, max_attempts=2))
    read(index=place)
    [name] = index_keys(server)
    stale = server.buckets.objects["others", name].data
    changed = numbered(12, 500)
    server.buckets.put(
        BUCKET, f"shards/{shards[1].name}", write_tar(shards[1], changed).read_bytes()
    )
    answer = server.answer
    server.answer = lambda request: (
        error(500, "InternalError") if request.method == "PUT" else answer(request)
    )
    with pytest.warns(RuntimeWarning, match="on this machine alone, and the next") as told:
        read(index=place)
    assert len([one for one in told if "on this machine alone" in str(one.message)]) == 1
    assert server.buckets.objects["others", name].data == stale
    server.answer = answer
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    assert read(index=place) == expected(shards)
    assert server.buckets.objects["others", name].data != stale
    assert asked_of(server, name)[-1] == "PUT"
    server.requests.clear()
    read(index=place)
    assert asked_of(server, name) == ["HEAD"]
    new_machine()
    assert read(index=place) == expected(shards)


def test_the_command_that_puts_a_new_one_does_not_ask_for_it(server, shards, new_machine, recwarn):
    make_index()
    write_tar(shards[1], numbered(12, 500))
    server.buckets.put(BUCKET, f"shards/{shards[1].name}", shards[1].read_bytes())
    new_machine()
    make_index()
    assert [str(one.message) for one in recwarn] == []
    new_machine()
    assert read() == expected(shards)


def test_documents_of_tokens_are_found_by_the_first_machine(server, new_machine, monkeypatch):
    documents = [np.append(one, 0) for one in numbered_tokens([3, 1, 5, 2], "<u2", first=1)]
    for number, part in enumerate((documents[:2], documents[2:])):
        server.buckets.put(BUCKET, f"tokens/{number}.bin", joined(part).astype("<u2").tobytes())
    options: Any = {"documents": "single", "dtype": "u2", "eos": 0, "batch_size": 3, "pool": None}

    def texts() -> list[list[int]]:
        dataset = TokenDataset(f"s3://{BUCKET}/tokens/*.bin", index=f"s3://{BUCKET}/i", **options)
        return [one.tolist() for batch in dataset for one in batch]

    assert texts() == [one.tolist() for one in documents]
    [key] = index_keys(server)
    assert key.startswith("i/.torch_s3io-tokens-")
    new_machine()
    looks = "torch_s3io.format.tokens.ends._look_through"
    monkeypatch.setattr(looks, lambda *_: pytest.fail("the tokens are looked through again"))
    assert texts() == [one.tolist() for one in documents]


def test_it_is_not_taken_for_data(server, shards):
    make_index()
    [key] = index_keys(server)
    server.buckets.put(BUCKET, key, bytes(1 << 20))
    for pattern in (f"{FOLDER}/*", f"{FOLDER}/**", f"s3://{BUCKET}/**"):
        files = SampleDataset.from_files(pattern, batch_size=1, return_key=True)
        assert [batch["key"][0].rpartition("/")[2] for batch in files] == [
            file.name for file in shards
        ]
    from torch_s3io.doctor.buckets import buckets

    findings = buckets(FOLDER, True, lambda _text: None)
    [path] = {one.data["path"] for one in findings if "path" in (one.data or {})}
    assert path.endswith(".tar")


def test_a_real_server_keeps_it(real, tmp_path, new_machine, monkeypatch):
    files, folder = write_shards(tmp_path), "s3://indexes/index tests/ä +%="
    with named_by_environment(real):
        create_bucket(real, "indexes")
        store = s3io.open_store(folder)
        for file in files:
            store.put(f"{folder}/{file.name}", file.read_bytes())
        pattern = f"{folder}/*.tar"
        assert cli.main(["index", pattern]) == 0
        new_machine()
        monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
        assert read(pattern) == expected(files)


def test_it_lies_in_the_folder_that_has_all_objects():
    def place(*sources: str) -> str:
        return index_places(sources, RECIPE, True).in_bucket.rpartition("/")[0]

    assert place("s3://b/x/1.tar", "s3://b/x/2.tar") == "s3://b/x"
    assert place("s3://b/x/1/a", "s3://b/x/10/a") == "s3://b/x"
    assert place("s3://b/*.tar") == place("s3://b/a.tar", "s3://b/x/../b.tar") == "s3://b"
    assert place("s3://b/x//a", "s3://b/x//b") == "s3://b/x/"
    assert place("s3://b/a", "s3://c/a") == place("memory://b/a") == place("/data/a") == ""
    [cached] = index_places(["s3://b/a"], RECIPE, True).paths
    named = index_places(["s3://b/a"], RECIPE, "s3://i/x/")
    assert named == index_places(["s3://b/a"], RECIPE, "s3://i/x")
    assert named.in_bucket == f"s3://i/x/{Path(cached).name}"
    assert named.paths != [cached]
    moved = index_places(["s3://c/d/x/a", "s3://c/d/b"], RECIPE, True).name
    assert moved == index_places(["s3://c/x/a", "s3://c/b"], RECIPE, True).name
    assert moved == index_places(["/c/x/a", "/c/b"], RECIPE, True).name
    for wrong in ("s3://", "gs://bucket/x", Path("s3://bucket/x")):
        with pytest.raises(s3io.ConfigError):
            index_places(["s3://b/a"], RECIPE, wrong)


def test_a_listing_of_local_files_may_lie_in_a_bucket(server, tmp_path, new_machine, monkeypatch):
    (tmp_path / "files").mkdir()
    for number in range(3):
        (tmp_path / "files" / f"{number}.jpg").write_bytes(bytes([number]))

    def contents() -> list[bytes]:
        pattern = str(tmp_path / "files" / "*.jpg")
        files = SampleDataset.from_files(pattern, index=f"s3://{BUCKET}/i", batch_size=3)
        return [bytes(one.numpy()) for batch in files for one in batch["data"]]

    assert contents() == [b"\0", b"\1", b"\2"]
    [key] = index_keys(server)
    assert key.startswith("i/.torch_s3io-folder-")
    new_machine()
    scan = "torch_s3io.store.file_columns.FilePattern.scan"
    monkeypatch.setattr(scan, lambda *_, **__: pytest.fail("the folder is listed again"))
    assert contents() == [b"\0", b"\1", b"\2"]


def test_without_a_cache_folder_it_is_in_memory_or_refused(
    server, shards, new_machine, monkeypatch
):
    new_machine().parent.write_bytes(b"no folder")
    with pytest.warns(RuntimeWarning, match="it is in memory, and made again by every program"):
        assert read() == expected(shards)
    new_machine()
    make_index()
    new_machine().parent.write_bytes(b"no folder")
    with monkeypatch.context() as patch:
        patch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
        with pytest.warns(RuntimeWarning, match="and read from its bucket again by every program"):
            dataset = SampleDataset.from_tar(f"{FOLDER}/*.tar", fields=("jpg", "cls"))
    assert pickle.loads(pickle.dumps(dataset)).num_records == 30
    with pytest.raises(s3io.AccessError, match="the copy of index= in the cache folder cannot be"):
        read(index=f"s3://{BUCKET}/i")
    assert cli.main(["index", f"{FOLDER}/*.tar", "--place", f"s3://{BUCKET}/i"]) == 1
