"""SampleDataset.from_tar: what archives of all kinds give, against tarfile."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_files import Files, numbered, read_samples, samples_of, write_shards, write_tar

import torch_s3io as s3io
from torch_s3io import ConfigError, DataError, NotFoundError, SampleDataset


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    return write_shards(tmp_path)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_those_that_tarfile_finds(tmp_path, format):
    paths = [write_tar(tmp_path / f"{n}.tar", numbered(10, 10 * n), format) for n in range(2)]
    dataset = SampleDataset.from_tar(
        tmp_path / "*.tar", fields=("jpg", "cls", "json?"), batch_size=3, return_key=True
    )
    expected = [
        (key, {name: fields.get(name, b"") for name in ("jpg", "cls", "json")})
        for key, fields in samples_of(paths)
    ]
    assert read_samples(dataset) == expected
    shuffled = read_samples(dataset, shuffle=True)
    assert shuffled != expected
    assert sorted(shuffled, key=lambda sample: sample[0]) == expected


def test_the_snippet_of_the_docstring(shards):
    dataset = SampleDataset.from_tar(
        str(shards[0].parent / "{000..002}.tar"), fields=("jpg", "cls"), decode={"cls": int}
    )
    [batch] = dataset
    assert list(batch) == ["jpg", "cls"]
    assert isinstance(batch["jpg"], s3io.Ragged)
    assert (batch["cls"].dtype, batch["cls"].tolist()) == (torch.int64, list(range(30)))
    assert dataset.shape == {"jpg": (None,), "cls": (None,)}


def test_paths_are_patterns_folders_lists_and_names_with_braces_in_them(shards):
    folder = shards[0].parent

    def keys(paths: Any, **options: Any) -> list[str]:
        dataset = SampleDataset.from_tar(paths, fields=["cls"], decode={"cls": int}, **options)
        return [f"{number:04}" for batch in dataset for number in batch["cls"].tolist()]

    every = [f"{number:04}" for number in range(30)]
    for paths in (folder, folder / "*.tar", shards, [str(folder / "{000..001}.tar"), shards[2]]):
        assert keys(paths) == every
    assert keys(shards[::-1]) == every[20:] + every[10:20] + every[:10]
    assert keys([shards[1], shards[1]]) == every[10:20] * 2
    assert keys(os.fsencode(folder / "*.tar")) == every
    assert keys([os.fsencode(one) for one in shards]) == every
    strange = shards[0].rename(folder / "a{0,1}.tar")
    assert keys(strange) == every[:10]
    with pytest.raises(NotFoundError, match=r"003\.tar"):
        keys(str(folder / "{001..003}.tar"))


def test_any_order_and_any_choice_of_shards_has_the_keys_that_belong_to_it(shards):
    by_path = {path: samples_of([path]) for path in shards}
    for paths in (shards[::-1], [shards[2], shards[0]], [shards[1]] * 3):
        dataset = SampleDataset.from_tar(paths, fields=["jpg", "cls"], return_key=True)
        expected = [(key, fields) for path in paths for key, fields in by_path[path]]
        for (key, fields), (wanted, of_wanted) in zip(read_samples(dataset), expected, strict=True):
            assert (key, fields["jpg"]) == (wanted, of_wanted["jpg"])


# Fields that are missing -------------------------------------------------------------------------

PARTIAL = {"0.jpg": b"a", "0.cls": b"0", "1.jpg": b"b", "2.cls": b"2", "3.jpg": b"d", "3.cls": b"3"}


def test_a_sample_without_a_field_is_an_error_that_says_what_to_do(tmp_path):
    path = write_tar(tmp_path / "a.tar", PARTIAL)
    with pytest.raises(DataError) as caught:
        SampleDataset.from_tar(path, fields=("jpg", "cls"))
    text = str(caught.value)
    assert text.startswith(f"{path}: sample '2' has no field 'jpg'. fields=('jpg?', ...)")
    assert "missing='skip' leaves such samples out" in text
    with pytest.raises(DataError, match="sample '1' has no field 'cls'"):
        SampleDataset.from_tar(path, fields=("jpg?", "cls"))


def test_samples_without_a_field_are_skipped_or_have_an_empty_one(tmp_path):
    paths = [write_tar(tmp_path / "a.tar", PARTIAL), write_tar(tmp_path / "b.tar", {"9.jpg": b"i"})]

    def found(**options: Any) -> list[tuple[str, Files]]:
        options = {"fields": ("jpg", "cls"), **options}
        return read_samples(SampleDataset.from_tar(paths, return_key=True, **options))

    whole = [("0", {"jpg": b"a", "cls": b"0"}), ("3", {"jpg": b"d", "cls": b"3"})]
    assert found(missing="skip") == whole
    assert found(missing="skip", shuffle=True, seed=3) in (whole, whole[::-1])
    assert found(missing="skip", fields=("jpg", "cls?")) == [
        ("0", {"jpg": b"a", "cls": b"0"}),
        ("1", {"jpg": b"b", "cls": b""}),
        ("3", {"jpg": b"d", "cls": b"3"}),
        ("9", {"jpg": b"i", "cls": b""}),
    ]
    every = [
        *(("0", {"jpg": b"a", "cls": b"0"}), ("1", {"jpg": b"b", "cls": b""})),
        *(("2", {"jpg": b"", "cls": b"2"}), ("3", {"jpg": b"d", "cls": b"3"})),
        ("9", {"jpg": b"i", "cls": b""}),
    ]
    assert found(missing="empty") == found(fields=("jpg?", "cls?")) == every
    assert found(fields=None, missing="skip") == whole
    assert found(fields=None, missing="empty") == every
    with pytest.raises(DataError, match=r"'2' has no field 'jpg'|'1' has no field 'cls'"):
        found(fields=None)
    with pytest.warns(RuntimeWarning, match=r"no sample of 5 has the field 'jpgg\?'.*you mean jpg"):
        samples = found(fields=("jpgg?", "jpg?"))
    assert [list(fields) for _, fields in samples] == [["jpgg", "jpg"]] * 5
    with pytest.raises(DataError, match=r"none has the field 'jpeg': did you mean jpg\?"):
        found(fields=("jpeg", "cls"))
    paths = [write_tar(tmp_path / "c.tar", {"0.jpg": b"a", "1.cls": b"1"})]
    with pytest.raises(DataError, match="there are no samples in 1 file"):
        found(missing="skip")


@pytest.mark.parametrize("name", ["1.", "folder/1.", "1.\udcff\udcfe"])
def test_an_extension_that_cannot_be_a_field_is_an_error_where_it_is_wanted(tmp_path, name):
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"abc", name: b"d", "2.jpg": b"e"})
    shown = re.escape(name.replace("\udcff\udcfe", r"\xff\xfe"))
    for index in (True, False):
        with pytest.raises(
            DataError, match=rf"a\.tar: the end of '{shown}' after.*Name the fields"
        ):
            SampleDataset.from_tar(path, missing="empty", index=index)
    found = read_samples(
        SampleDataset.from_tar(path, fields=("jpg",), missing="skip", return_key=True)
    )
    assert found == [("0", {"jpg": b"abc"}), ("2", {"jpg": b"e"})]
    with pytest.raises(DataError, match="did you mean jpg"):
        SampleDataset.from_tar(path, fields=("jpeg",))
    with pytest.raises(ConfigError, match="is no extension"):
        SampleDataset.from_tar(path, fields=("\udcff",))


def test_what_is_shown_of_a_field_is_one_line(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.j\x1b[31m\n": b"abc"})
    dataset = SampleDataset.from_tar(path)
    assert r"{j\x1b[31m\n: uint8[n]}" in repr(dataset)


def test_rare_fields_are_found_as_well(tmp_path):
    files: Files = {}
    for number in range(100):
        files[f"{number:03}.txt"] = b"t" * number
        if number % 50 == 7:
            files[f"{number:03}.rare"] = f"r{number}".encode()
    paths = [write_tar(tmp_path / "a.tar", files)]
    paths += [write_tar(tmp_path / "b.tar", {f"x{name}": data for name, data in files.items()})]
    dataset = SampleDataset.from_tar(paths, fields=("rare?", "txt"), return_key=True, batch_size=7)
    expected = [
        (key, {"rare": fields.get("rare", b""), "txt": fields["txt"]})
        for key, fields in samples_of(paths)
    ]
    assert read_samples(dataset) == expected
    dataset = SampleDataset.from_tar(paths, fields=("rare",), missing="skip", return_key=True)
    assert [key for key, _ in read_samples(dataset)] == ["007", "057", "x007", "x057"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fields": "jpg"}, r"fields= is a sequence.*\('jpg', 'cls', 'json\?'\), not 'jpg'"),
        ({"fields": ()}, "fields= is a sequence"),
        ({"fields": (3,)}, "3 is no extension"),
        ({"fields": ("?",)}, "'\\?' is no extension"),
        ({"fields": ("JPG",)}, "in lower case.*give 'jpg'"),
        ({"fields": (".jpg",)}, "without the first dot.*give 'jpg'"),
        ({"fields": ("jpg", "jpg?")}, "one comes twice"),
        ({"missing": "none"}, "missing must be one of 'error', 'skip', 'empty'"),
        ({"return_key": 1}, "return_key must be True or False"),
        ({"index": 3}, "index= is True, False, or the path"),
        ({"index": "a\0b"}, "index= is True, False, or the path"),
        ({"index": "~nobody-of-this-name/x"}, "there is no such user"),
        ({"field": ("jpg",)}, "did you mean 'fields'"),
        ({"verify": True}, "no option 'verify'"),
        ({"decode": {"cls": 5}}, "5 for field 'cls' is no function"),
        ({"ragged": {"png": "packed"}}, "there is no field 'png'"),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_can(shards, options, text):
    with pytest.raises((ConfigError, TypeError), match=text):
        SampleDataset.from_tar(shards, **{"fields": ("jpg", "cls"), **options})


# Keys and numbers --------------------------------------------------------------------------------


def test_keys_come_with_batches_samples_indices_and_parts_of_a_mix(shards):
    dataset = SampleDataset.from_tar(
        shards, fields=("cls",), decode={"cls": int}, return_key=True, batch_size=4, shuffle=True
    )
    for batch in dataset:
        assert batch["key"] == [f"{number:04}" for number in batch["cls"].tolist()]
    for batch, index in dataset.with_options(return_index=True):
        assert batch["key"] == [f"{number:04}" for number in index.tolist()]
    for sample in dataset.with_options(batch_size=None):
        assert sample["key"] == f"{int(sample['cls']):04}"
    assert dataset.get_batch([29, 3])["key"] == ["0029", "0003"]
    options = {"fields": ("cls",), "decode": {"cls": int}, "batch_size": 4}
    mix = s3io.Mix([dataset, SampleDataset.from_tar(shards[1], return_key=True, **options)])
    count = 0
    for batch in mix:
        assert batch["key"] == [f"{number:04}" for number in batch["cls"].tolist()]
        count += len(batch["key"])
    assert count == 40
    with pytest.raises(ConfigError, match="return_key="):
        s3io.Mix([dataset, SampleDataset.from_tar(shards[1], **options)])
    path = write_tar(shards[0].parent / "key.tar", {"0.key": b"k"})
    with pytest.raises(ConfigError, match="there is a field 'key'"):
        SampleDataset.from_tar(path, return_key=True)


def test_numbers_become_tensors(tmp_path):
    files = {"0.i": b"-7\n", "0.f": b"1.5", "1.i": b" 9223372036854775807 ", "1.f": b"-inf"}
    path = write_tar(tmp_path / "a.tar", files)
    [batch] = SampleDataset.from_tar(path, decode={"i": int, "f": float})
    assert (batch["i"].dtype, batch["i"].tolist()) == (torch.int64, [-7, 2**63 - 1])
    assert (batch["f"].dtype, batch["f"].tolist()) == (torch.float64, [1.5, float("-inf")])
    samples = list(SampleDataset.from_tar(path, decode={"i": int}, batch_size=None))
    assert [int(sample["i"]) for sample in samples] == [-7, 2**63 - 1]
    for wrong in (b"x", b"", b"9223372036854775808", b"1.5"):
        path = write_tar(tmp_path / "b.tar", {"a.i": b"1", "b.i": wrong})
        with pytest.raises(
            DataError, match=r"b\.tar: sample 1, 'b': decode=\{'i': ...\}"
        ) as caught:
            next(iter(SampleDataset.from_tar(path, decode={"i": int})))
        assert ("missing in this sample" in str(caught.value)) == (wrong == b"")


# Any archives ------------------------------------------------------------------------------------

NONE_HAS_IT = "ignore:.*no sample of .* has the field:RuntimeWarning"

any_sample = st.dictionaries(
    st.sampled_from(["jpg", "cls", "seg.png", "JSON", "a"]), st.binary(max_size=700), min_size=1
)


@pytest.mark.filterwarnings(NONE_HAS_IT)
@settings(max_examples=25)
@given(
    st.lists(st.lists(any_sample, max_size=5), min_size=1, max_size=3).filter(any),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.randoms(use_true_random=False),
)
def test_any_archives_are_read_as_tarfile_reads_them(tmp_path, archives, format, random):
    for old in tmp_path.glob("*.tar"):
        old.unlink()
    paths = []
    for number, samples in enumerate(archives):
        files = {
            f"folder/{row:03}.{name}": data
            for row, sample in enumerate(samples)
            for name, data in sample.items()
        }
        paths.append(write_tar(tmp_path / f"{number}.tar", files, format))
    random.shuffle(paths)
    fields = ("jpg", "cls", "seg.png", "json")
    dataset = SampleDataset.from_tar(
        paths, fields=[f"{name}?" for name in fields], batch_size=4, return_key=True, pool=None
    )
    expected = [
        (key, {name: found.get(name, b"") for name in fields}) for key, found in samples_of(paths)
    ]
    assert read_samples(dataset) == expected


def test_what_webdataset_writes_is_read_as_webdataset_reads_it(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="NEEDS WEBDATASET")
    pattern = str(tmp_path / "{000..002}.tar")
    for number in range(3):
        with webdataset.TarWriter(str(tmp_path / f"{number:03}.tar")) as writer:
            for row in range(20):
                key = f"{number}-{row:05}"
                writer.write({"__key__": key, "bin": key.encode() * row, "cls": row})
    wanted = [
        (sample["__key__"], {"bin": sample["bin"], "cls": sample["cls"]})
        for sample in webdataset.WebDataset(pattern, shardshuffle=False)
    ]
    dataset = SampleDataset.from_tar(pattern, fields=("bin", "cls"), return_key=True, batch_size=9)
    assert read_samples(dataset) == wanted
