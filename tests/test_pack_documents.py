"""pack --documents: what is written is what TokenDataset reads, and what Megatron's layout says."""

from __future__ import annotations

import contextlib
import json
import re
import struct

import numpy as np
import pytest
from buckets import BUCKET, deny, lie, needs_s3, serving
from token_files import numbered, write_datatrove, write_ended, write_llm_c, write_megatron

from torch_s3io import ConfigError, FileStore, TokenDataset, WriteError, open_store
from torch_s3io.cli import main
from torch_s3io.store.object_writer import ObjectWriter
from torch_s3io.writing import document_packing

LENGTHS = [5, 0, 1, 300, 7, 70]


def pack(*arguments: object, status: int = 0) -> None:
    assert main(["pack", *map(str, arguments), "--format", "tokens"]) == status


def parsed(prefix) -> list[list[int]]:
    """By Megatron's layout, with struct alone."""
    index, data = prefix.with_suffix(".idx").read_bytes(), prefix.with_suffix(".bin").read_bytes()
    magic, version, code, sequences, bounds = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, bounds) == (b"MMIDIDX\0\0", 1, sequences + 1)
    lengths = struct.unpack_from(f"<{sequences}i", index, 34)
    offsets = struct.unpack_from(f"<{sequences}q", index, 34 + 4 * sequences)
    documents = struct.unpack_from(f"<{bounds}q", index, 34 + 12 * sequences)
    assert documents == tuple(range(sequences + 1))
    assert len(index) == 34 + 12 * sequences + 8 * bounds
    letter = {1: "B", 4: "i", 8: "H"}[code]
    return [
        list(struct.unpack_from(f"<{length}{letter}", data, offset))
        for length, offset in zip(lengths, offsets, strict=True)
    ]


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
def test_documents_come_back(disk, kind, capsys):
    documents = numbered(LENGTHS)
    write_datatrove(disk / "a.ds", documents[:3], kind)
    write_datatrove(disk / "b.ds", documents[3:], kind)
    pack(disk / "*.ds", "--documents", "-o", disk / "out" / "all")
    assert "6 documents of 383 tokens" in capsys.readouterr().out
    expected = [document.tolist() for document in documents]
    assert parsed(disk / "out" / "all") == expected
    dataset = TokenDataset(disk / "out" / "all", documents="single", pool=None)
    assert [one.tolist() for batch in dataset for one in batch] == expected
    assert sorted(path.name for path in (disk / "out").iterdir()) == ["all.bin", "all.idx"]
    pack(disk / "a.ds", "--documents", "-o", disk / "out" / "all", status=1)
    assert "is there already" in capsys.readouterr().err
    pack(disk / "a.ds", "--documents", "-o", disk / "out" / "all", "--overwrite")
    assert parsed(disk / "out" / "all") == expected[:3]


@needs_s3
def test_documents_go_into_a_bucket_and_come_from_one(disk, capsys):
    documents = numbered(LENGTHS)
    write_datatrove(disk / "a.ds", documents, "<u2")
    expected = [document.tolist() for document in documents]
    prefix = f"s3://{BUCKET}/corpus/all"
    with serving() as server:
        pack(disk / "a.ds", "--documents", "-o", prefix)
        assert f"{prefix}.bin: 6 documents of 383 tokens" in capsys.readouterr().out
        assert sorted(key for _, key in server.buckets.objects) == [
            "corpus/all.bin", "corpus/all.idx",
        ]  # fmt: skip
        for path in (prefix, f"{prefix}.bin"):
            dataset = TokenDataset(path, documents="single", pool=None)
            assert [one.tolist() for batch in dataset for one in batch] == expected
        pack(prefix, "--documents", "-o", f"s3://{BUCKET}/again.bin")
        for end in ("bin", "idx"):
            again = server.buckets.objects[BUCKET, f"again.{end}"]
            assert again.data == server.buckets.objects[BUCKET, f"corpus/all.{end}"].data
        pack(disk / "a.ds", "--documents", "-o", prefix, status=1)
        assert "all.bin: is there already" in capsys.readouterr().err
        pack(disk / "a.ds", "--documents", "-o", prefix, "--overwrite")
        assert not server.buckets.uploads


@needs_s3
@pytest.mark.parametrize("is_new", [True, False])
def test_tokens_whose_index_is_refused_are_told_of(disk, capsys, is_new):
    write_datatrove(disk / "a.ds", numbered(LENGTHS), "<u2")
    command = [disk / "a.ds", "--documents", "-o", f"s3://{BUCKET}/all"]
    with serving() as server:
        if not is_new:
            pack(*command)
            command.append("--overwrite")
        deny(server, "PUT", "all.idx")
        pack(*command, status=1)
        keys = sorted(key for _, key in server.buckets.objects)
    text = capsys.readouterr().err
    left = "is left without .*all.idx: write both again, with --overwrite"
    told = left if is_new else "and .*all.idx may not belong together: write both again"
    assert re.search(rf"all.idx: .*AccessDenied.*all.bin {told}", text)
    assert keys == (["all.bin"] if is_new else ["all.bin", "all.idx"])


@needs_s3
@pytest.mark.parametrize("is_new", [True, False])
def test_an_index_that_the_server_did_not_keep_is_an_error(disk, capsys, is_new):
    write_datatrove(disk / "a.ds", numbered(LENGTHS[:3]), "<u2")
    write_datatrove(disk / "b.ds", numbered(LENGTHS), "<u2")
    command = ["--documents", "--overwrite", "-o", f"s3://{BUCKET}/all"]
    with serving() as server:
        if not is_new:
            pack(disk / "a.ds", *command)
        lie(server, "PUT", "all.idx")
        pack(disk / "b.ds", *command, status=1)
    what = "does not have it" if is_new else "has something else, its old one or another run's"
    text = capsys.readouterr().err
    assert f"all.idx: the server says that it has written it, and {what}; " in text
    assert f"all.bin and s3://{BUCKET}/all.idx may not belong together: write both again" in text


@needs_s3
def test_keys_that_may_only_write_are_enough_for_documents(disk):
    write_datatrove(disk / "a.ds", numbered(LENGTHS), "<u2")
    with serving() as server:
        deny(server, "HEAD", "all")
        deny(server, "GET", "all")
        with pytest.warns(RuntimeWarning, match="all.idx: .*so it was not read again"):
            pack(disk / "a.ds", "--documents", "--overwrite", "-o", f"s3://{BUCKET}/all")
        assert {key for _, key in server.buckets.objects} == {"all.bin", "all.idx"}


@needs_s3
def test_objects_that_may_not_be_looked_at_are_replaced_together(disk):
    write_datatrove(disk / "a.ds", numbered(LENGTHS[:3]), "<u2")
    write_datatrove(disk / "b.ds", numbered(LENGTHS), "<u2")
    command = ["--documents", "--overwrite", "-o", f"s3://{BUCKET}/all"]
    pack(disk / "b.ds", "--documents", "-o", disk / "expected")
    with serving() as server:
        pack(disk / "a.ds", *command)
        deny(server, "HEAD", "all")
        pack(disk / "b.ds", *command)
        for end in ("bin", "idx"):
            there = server.buckets.objects[BUCKET, f"all.{end}"].data
            assert there == (disk / f"expected.{end}").read_bytes()


@pytest.mark.parametrize("is_bucket", [False, pytest.param(True, marks=needs_s3)])
@pytest.mark.parametrize("fails", [False, True])
def test_tokens_of_another_run_stay(disk, is_bucket, fails, monkeypatch, capsys):
    """It overwrites those of this run, whose index is then there already, or fails otherwise."""
    for name, documents in (("ours", [[1, 2]]), ("theirs", [[3], [4, 5, 6]])):
        write_datatrove(disk / f"{name}.ds", [np.array(one) for one in documents], "<u2")
    pack(disk / "theirs.ds", "--documents", "-o", disk / "expected")
    out = f"s3://{BUCKET}/out" if is_bucket else str(disk / "out")
    write_index = document_packing._write_index

    def while_another_packs(*arguments):
        monkeypatch.setattr(document_packing, "_write_index", write_index)
        pack(disk / "theirs.ds", "--documents", "-o", out, "--overwrite")
        if fails:
            error = WriteError("the disk is gone")
            error.is_undone = True
            raise error
        write_index(*arguments)

    monkeypatch.setattr(document_packing, "_write_index", while_another_packs)
    with serving() if is_bucket else contextlib.nullcontext():
        pack(disk / "ours.ds", "--documents", "-o", out, status=1)
        for end in ("bin", "idx"):
            there = open_store(out).get(f"{out}.{end}").numpy().tobytes()
            assert there == (disk / f"expected.{end}").read_bytes()
    error = capsys.readouterr().err
    assert ("the disk is gone" if fails else "out.idx may not belong together: write both") in error


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (".bin", "whether {}.bin is the new one is unknown: write both again"),
        (".idx", "{0}.bin and {0}.idx may not belong together: write both again"),
    ],
)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, WriteError])
def test_what_ends_a_pack_in_its_last_steps_says_what_it_leaves(
    disk, end, told, kind, monkeypatch, capsys
):
    write_datatrove(disk / "a.ds", numbered(LENGTHS), "<u2")
    pack(disk / "a.ds", "--documents", "-o", disk / "all")
    finish = ObjectWriter.finish

    def ended(writer):
        written = finish(writer)
        if writer.path.endswith(end):
            raise kind
        return written

    monkeypatch.setattr(ObjectWriter, "finish", ended)
    command = [disk / "a.ds", "--documents", "-o", disk / "all", "--overwrite"]
    told = told.format(disk / "all")
    if kind is SystemExit:  # as SIGTERM raises it
        with pytest.warns(RuntimeWarning, match=re.escape(told)), pytest.raises(SystemExit):
            pack(*command)
    else:
        pack(*command, status=130 if kind is KeyboardInterrupt else 1)
        assert told in capsys.readouterr().err


def test_a_file_system_that_cannot_spare_a_file_needs_overwrite(disk, monkeypatch, capsys):
    write_datatrove(disk / "a.ds", numbered(LENGTHS), "<u2")

    def cannot(store, path, data, *, if_absent):
        assert if_absent
        raise ConfigError(f"{path}: its file system cannot; leave if_absent out")

    def write(writer, data):
        raise AssertionError("it is known before anything is written")

    monkeypatch.setattr(FileStore, "put", cannot)
    monkeypatch.setattr(ObjectWriter, "write", write)
    pack(disk / "a.ds", "--documents", "-o", disk / "all", status=1)
    text = capsys.readouterr().err
    assert text.endswith("/all: its file system cannot; give --overwrite\n")
    assert not list(disk.glob("*all*"))


def test_a_name_of_many_bytes_is_written(disk):
    write_datatrove(disk / "a.ds", numbered(LENGTHS), "<u2")
    name = "\N{DESERT}" * 60  # 240 bytes
    pack(disk / "a.ds", "--documents", "-o", disk / name)
    assert parsed(disk / name) == [document.tolist() for document in numbered(LENGTHS)]


def test_documents_that_a_token_ends_are_listed_from_then_on(disk):
    documents = [np.append(one + 1, 0) for one in numbered([4, 0, 9])]
    write_ended(disk / "raw.bin", documents, eos=0)
    options = ["--documents", "--dtype", "uint16", "--eos", 0]
    pack(disk / "raw.bin", *options, "-o", disk / "out")
    assert parsed(disk / "out") == [document.tolist() for document in documents]


def test_all_documents_are_written_whatever_torchrun_says(disk, monkeypatch):
    documents = numbered(LENGTHS)
    write_megatron(disk / "in", documents)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    pack(disk / "in", "--documents", "-o", disk / "out")
    assert parsed(disk / "out") == [document.tolist() for document in documents]


def test_options_that_have_no_effect_are_refused(disk, capsys):
    write_megatron(disk / "in", numbered(LENGTHS))
    for options in (["--window", 5], ["--align", "none"], ["--shard-mib", 3]):
        with pytest.raises(SystemExit):
            pack(disk / "in", "--documents", "-o", disk / "out", *options)
        assert "is not for --documents" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pack(disk / "in", "--eos", 3, "-o", disk / "out")
    with pytest.raises(SystemExit):
        main(["pack", str(disk / "in"), "--documents", "-o", str(disk / "out")])
    assert "give --format tokens" in capsys.readouterr().err


def test_errors_speak_of_options(disk, capsys):
    write_megatron(disk / "in", numbered(LENGTHS))
    write_ended(disk / "raw.bin", numbered(LENGTHS), eos=0)
    for name, options, text in [
        ("raw.bin", [], "give --dtype uint16, or 'uint32'"),
        ("raw.bin", ["--dtype", "int8", "--eos", 255], "--eos 255 is no int8"),
        ("in.bin", ["--eos", 3], "needs no --eos: leave it out"),
    ]:
        pack(disk / name, "--documents", "-o", disk / "out", *options, status=1)
        said = capsys.readouterr().err
        assert text in said
        assert "format=" not in said
    assert main(["info", str(disk / "raw.bin")]) == 1
    assert "files of tokens of Megatron, llm.c and datatrove" in capsys.readouterr().err


def test_the_name_of_either_file_stands_for_both(disk):
    write_megatron(disk / "in", numbered(LENGTHS))
    pack(disk / "in", "--documents", "-o", disk / "out.bin")
    assert sorted(path.name for path in disk.glob("out*")) == ["out.bin", "out.idx"]


def test_tokens_that_are_too_large_leave_nothing(disk, capsys):
    write_llm_c(disk / "in.bin", np.array([1, (1 << 31) + 5]), 20240801)
    pack(disk / "in.bin", "--documents", "-o", disk / "out", status=1)
    assert "too large for Megatron's types" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["in.bin"]


@pytest.mark.parametrize("name", ["corpus", "corpus.bin"])
def test_info_says_what_a_file_of_tokens_has(disk, name, capsys):
    write_megatron(disk / "corpus", numbered(LENGTHS))
    assert main(["info", str(disk / name)]) == 0
    shown = capsys.readouterr().out
    assert "383 of int32" in shown
    assert "documents    6" in shown
    assert "at most 300" in shown
    assert main(["info", str(disk / name), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["num_documents"], facts["num_tokens"], facts["longest"]) == (6, 383, 300)
