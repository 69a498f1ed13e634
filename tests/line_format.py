"""Lines of texts as samples: a format of its own, made in a test."""

from __future__ import annotations

from functools import partial

import numpy as np

from torch_s3io.errors import DataError
from torch_s3io.format.files import inspect
from torch_s3io.format.objects import shard_of
from torch_s3io.format.paths import Paths, find_files
from torch_s3io.format.registry import register_format
from torch_s3io.format.sample_format import SampleFormat, Samples
from torch_s3io.format.sample_layout import make_sample_layout
from torch_s3io.format.sample_records import TablePlace
from torch_s3io.format.sample_table import SampleTable
from torch_s3io.store.store import FileOrder
from torch_s3io.store.stores import store_of

LAYOUT = make_sample_layout({"line": bytes})


def index(path: str) -> SampleTable:
    """Where the lines are, without the newlines that end them."""
    text = np.frombuffer(store_of(path).read(path), np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if len(text) and (not len(ends) or ends[-1] != len(text) - 1):
        raise DataError(f"{path}: the last line has no end: it was cut off")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    return SampleTable((starts.astype("<u8"),), ((ends - starts).astype("<u4")[:, None],))


def open_lines(paths: Paths, order: FileOrder) -> Samples:
    files = find_files(paths, order)
    infos = inspect(files)  # first: what changes from here on is found when it is read
    tables = [index(file.path) for file in files]
    shards = [
        shard_of(file, info, 0, table.num_samples)
        for file, info, table in zip(files, infos, tables, strict=True)
    ]
    places = [TablePlace(partial(index, shard.path), shard.size_bytes) for shard in shards]
    return Samples(LAYOUT, shards, places, tables)


def are_lines(paths: Paths, order: FileOrder) -> bool:
    items = paths if isinstance(paths, list) else [paths]
    return all(str(path).endswith(".txt") for path in items) and bool(items)


register_format(SampleFormat("lines", are_lines, open_lines))
