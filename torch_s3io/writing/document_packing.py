"""Documents of tokens, written as Megatron reads them."""

from __future__ import annotations

import os
import secrets
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..datasets.token_dataset import TokenDataset
from ..errors import ConfigError, DataError, Error, ExistsError
from ..format.tokens.megatron import HEAD, MAGIC, TYPES
from ..store.last_put import check_last
from ..store.object_writer import ObjectWriter
from ..store.store import FileOrder
from ..store.stores import scheme_of, store_of
from ..warning import warn
from .folder_writer import Place, place_of

_BATCH = 64  # documents that are read together
_MOST_TOKENS = (1 << 31) - 1  # of a document


@dataclass(frozen=True)
class PackedDocuments:
    """What was written: ``path`` and the ``.idx`` beside it."""

    path: str
    num_documents: int
    num_tokens: int
    size_bytes: int


def find_documents(
    paths: Sequence[str], file_order: FileOrder, dtype: Any, eos: int | None
) -> TokenDataset:
    """The documents of the files that ``paths`` name, as TokenDataset reads them."""
    return TokenDataset(
        paths,
        documents="single",
        batch_size=_BATCH,
        as_dtype=None,
        dtype=dtype,
        eos=eos,
        file_order=file_order,
        # All of them, also in a program that torchrun has started.
        rank=0,
        world_size=1,
        shard_by_worker=False,
    )


def size_of(dataset: TokenDataset) -> int:
    """Bytes of the files with its tokens."""
    return dataset._records.total_bytes


def pack_documents(
    dataset: TokenDataset, prefix: str, *, overwrite: bool, on_bytes: Callable[[int], object]
) -> PackedDocuments:
    """Writes what ``find_documents`` found to ``prefix.bin`` and ``prefix.idx``. Each takes its
    name when it is whole, the ``.idx`` at last.

    Args:
        prefix: Of files, or of objects in a bucket.
        overwrite: Else neither may be there, before or when it takes its name.
        on_bytes: Called with the bytes of each batch that was written.

    Raises:
        ConfigError, ExistsError: The files are there, and ``overwrite`` is not given.
        DataError: A document is longer than an ``.idx`` can say.
        WriteError, NoSpaceError, AccessError: They cannot be written.
    """
    path, index = f"{prefix}.bin", f"{prefix}.idx"
    for one in (path, index):
        if not overwrite and store_of(one).has(one):
            raise ConfigError(f"{one}: is there already; name another PREFIX, or --overwrite it")
    if not scheme_of(prefix):
        os.makedirs(os.path.dirname(prefix) or ".", exist_ok=True)
    place, lengths = place_of(prefix), array("i")
    if not (overwrite or scheme_of(prefix)):
        _check_that_files_are_spared(place, prefix)
    code = ""
    with _writer(place, path, overwrite) as writer:
        for batch in dataset:
            tokens, code = _as_megatron(batch.values, path)
            if batch.max_length > _MOST_TOKENS:
                raise DataError(f"{path}: a document has {batch.max_length} tokens, more than 2^31")
            lengths.extend(batch.lengths.tolist())
            writer.write(tokens)
            on_bytes(tokens.nbytes)
        counts = np.frombuffer(lengths, np.int32).astype("<i4")
        _finish_both(place, writer, index, counts, code, overwrite)
    item = np.dtype(code).itemsize
    total = int(counts.sum(dtype=np.int64))
    assert len(counts) == dataset.num_documents
    return PackedDocuments(path, len(counts), total, total * item)


def _check_that_files_are_spared(place: Place, prefix: str) -> None:
    """Raises ConfigError, before anything is written, where a file can only be replaced."""
    path = os.path.join(os.path.dirname(prefix), f".torch_s3io-{secrets.token_hex(8)}")
    try:
        place.store.put(path, b"", if_absent=True)
    except ConfigError as error:
        text = str(error).replace(path, prefix).replace("leave if_absent out", "give --overwrite")
        raise ConfigError(text) from None
    place.store.remove(path)


def _finish_both(
    place: Place,
    tokens: ObjectWriter,
    index: str,
    lengths: np.ndarray[Any, Any],
    code: str,
    overwrite: bool,
) -> None:
    """Puts ``tokens`` in place, and then the ``index``. What ends this says what it leaves. Tokens
    whose index fails stay: another run may have put its own in their place."""
    path = tokens.path
    left = f"whether {path} is the new one is unknown: write both again"
    try:
        try:
            tokens.finish()
        except Error as error:
            left = "" if error.is_undone else left
            raise
        left = f"{path} and {index} may not belong together: write both again"
        try:
            with _writer(place, index, overwrite) as writer:
                _write_index(writer, lengths, code)
                written = writer.finish()
            check_last(place.store, index, written.crc32c)
        except Error as error:
            is_there = isinstance(error, ExistsError)  # another run's
            if error.is_undone and not (overwrite or is_there):
                left = f"{path} is left without {index}: write both again, with --overwrite"
            raise
    except Error as error:
        if left:
            raise type(error)(f"{error}; {left}") from None
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(left) from None
    except BaseException:  # SIGTERM's, say
        if left:
            warn(left)
        raise


def _writer(place: Place, path: str, overwrite: bool) -> ObjectWriter:
    writer: ObjectWriter = place.store.writer(path, if_absent=not overwrite, **place.shard_options)
    return writer


def _write_index(writer: ObjectWriter, lengths: np.ndarray[Any, Any], code: str) -> None:
    count = len(lengths)
    number = next(number for number, kind in TYPES.items() if kind == code)
    sizes = lengths.astype("<i8") * np.dtype(code).itemsize
    writer.write(HEAD.pack(MAGIC, 1, number, count, count + 1))
    writer.write(lengths)
    writer.write(np.cumsum(sizes, dtype="<i8") - sizes)
    writer.write(np.arange(count + 1, dtype="<i8"))


def _as_megatron(values: torch.Tensor, path: str) -> tuple[np.ndarray[Any, Any], str]:
    """Tokens in one of its types, which have no uint32."""
    tokens = values.numpy()
    if tokens.dtype in (np.uint32, np.uint64):
        tokens = tokens.view(tokens.dtype.name.removeprefix("u"))
        if len(tokens) and int(tokens.min()) < 0:
            raise DataError(f"{path}: a token is too large for Megatron's types: it has no uint32")
    code = tokens.dtype.newbyteorder("<").str.replace("|", "")
    return tokens, code
