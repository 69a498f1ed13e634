"""docs/webdataset.md: what stands side by side in its table gives the same samples."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import ROOT, Page

import torch_s3io as s3io

PAGE = Page("docs/webdataset.md")
ROWS = re.findall(r"^\| `([^`]+)` \| `((?:from_tar|s3io\.DataLoader)[^`]+)` \|$",
                  (ROOT / PAGE.name).read_text(), re.M)  # fmt: skip


def webdataset() -> Any:
    return pytest.importorskip("webdataset", reason="NEEDS WEBDATASET: its side was not run")


@pytest.fixture(autouse=True)
def _in_a_folder_with_archives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shards").mkdir()
    for shard in range(3):
        with tarfile.open(f"shards/{shard:03}.tar", "w") as archive:
            for number in range(10 * shard, 10 * shard + 10):
                for name, data in files_of(number).items():
                    info = tarfile.TarInfo(f"{number:03}.{name}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def files_of(number: int) -> dict[str, bytes]:
    files = {
        "jpg": b"j" * number,
        "cls": str(number).encode(),
        "txt": b"t" * (number % 7),
        "json": json.dumps({"number": number}).encode(),
    }
    if number % 4 == 0:
        array = io.BytesIO()
        np.save(array, np.arange(number))
        files["npy"] = array.getvalue()
    return files


def test_every_block_is_run():
    PAGE.check()
    assert len(ROWS) == 12


@PAGE.runs("From webdataset", "python")
def test_the_snippet_gives_what_its_comments_say(block):
    names: dict[str, Any] = {}
    PAGE.run(block, names, replaced={"batch_size=256": "batch_size=30"})
    batch = names["batch"]
    assert isinstance(batch["jpg"], s3io.Ragged)
    assert batch["cls"].dtype == torch.int64
    assert sorted(batch["cls"].tolist()) == list(range(30))
    assert [len(image) for image in batch["jpg"]] == batch["cls"].tolist()


def as_plain(value: Any) -> Any:
    """Bytes, numbers, texts and lists, whoever delivered them."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes() if value.dim() else value.item()
    return value


def ours(dataset: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Samples by field, the key first."""
    found = []
    for batch in dataset:
        key = [batch.pop("key")] if "key" in batch else []
        columns = [*key, *(batch[name] for name in batch)]
        are_columns = [
            isinstance(one, (s3io.Ragged, list)) or (torch.is_tensor(one) and one.dim() > 0)
            for one in columns
        ]
        if all(are_columns):
            found += [tuple(map(as_plain, row)) for row in zip(*columns, strict=True)]
        else:
            found.append(tuple(map(as_plain, columns)))
    return found


def theirs(dataset: Iterable[Any]) -> list[tuple[Any, ...]]:
    found = []
    for sample in dataset:
        if isinstance(sample, dict):
            every = ("cls", "jpg", "json", "npy", "txt")
            sample = (sample["__key__"], *(sample.get(name, b"") for name in every))
        rows = zip(*sample, strict=True) if isinstance(sample[0], list) else [sample]
        found += [tuple(row) for row in rows]
    return found


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_both_sides_of_a_row_give_the_same_samples(row):
    left, right = ROWS[row]
    names = {"url": "shards/{000..002}.tar", "json": json, "s3io": s3io,
             "from_tar": s3io.SampleDataset.from_tar}  # fmt: skip
    found = ours(eval(right, names))
    assert found
    wanted = theirs(eval(left, names | {"wds": webdataset()}))
    in_order = "shuffle=True" not in right and "num_workers" not in right
    if in_order:
        assert found == wanted
    else:
        assert sorted(found) == sorted(wanted)
