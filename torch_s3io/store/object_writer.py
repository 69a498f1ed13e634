"""Files that are written in chunks, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import _C
from ..config import check_bool
from ..errors import ConfigError

# Bytes, a contiguous numpy array, or a contiguous CPU tensor: whatever has bytes that lie together.
Bytes = Any


class WrittenObject(NamedTuple):
    """What became of a write.

    Attributes:
        size_bytes: Of the file.
        crc32c: Of its content; None with ``checksum_writes=False``.
        checksum_kept: Whether the file keeps the checksum, in an attribute.
    """

    size_bytes: int
    crc32c: int | None
    checksum_kept: bool


class ObjectWriter:
    """A file that is written in chunks; made by ``FileStore.writer``. A context manager::

        with store.writer("features.bin") as writer:
            for chunk in chunks:
                writer.write(chunk)

    The bytes go to a temporary file in the same folder; through a symbolic link, in that of the
    file behind it, which is written while the link stays (unless ``follow_links=False``). A file
    that is replaced leaves its permissions to the new one, but not its owner, ACLs, attributes and
    other hard links.

    Leaving the block finishes the file and gives it its name; an exception cancels it. Until then,
    and after a cancelled or failed write, the old file is there, or none. Temporary files of
    processes that died are removed when the next writer starts in the folder; those of live ones
    are spared.

    Every wait ends after ``range_timeout``: for the writes in flight until one comes back, and for
    each step of completing the file (writing 32 MiB back from the page cache, fsync, rename). A
    ``WriteTimeoutError`` in the rename leaves it unknown whether the new file has taken its place,
    and the error says so; in the steps before that it has not. Ctrl-C while ``finish`` waits leaves
    the same unknown, but a ``KeyboardInterrupt`` has no text that could say so. What hangs is left
    to a thread, which removes the temporary file if the call ever comes back.

    Writes of 1 MiB, or of one alignment where that is more, go out as soon as they are full, eight
    at a time. Chunks of 8 MiB and more whose memory and position are aligned for direct writes go
    out from where they lie; so do shorter ones that ``write`` need not copy.

    Threads may call one after the other. A forked child cannot use its parent's writer.
    """

    def __init__(
        self, writer: _C.ObjectWriter, path: str, after_write: Callable[[str], None]
    ) -> None:
        self._writer = writer
        self._after_write = after_write
        self.path = path
        self._written: WrittenObject | None = None

    def write(self, chunk: Bytes, *, copy: bool = True) -> None:
        """Appends the bytes of ``chunk``, which may change when the call returns.

        Args:
            copy: False: the writer may refer to the chunk instead, which must not change before the
                file is finished. The first call that finds it written lets go of it, so that a
                tensor of a buffer pool goes back there. At most eight chunks are held: take
                them from a pool of nine buffers or more, since a ``take`` that waits is no call of
                the writer. Chunks below 64 KiB, or not aligned, are copied all the same.

        Raises:
            ConfigError: Not bytes, or the writer was finished or cancelled before.
            NoSpaceError, WriteError, WriteTimeoutError: The writer is cancelled then.
        """
        check_bool("copy", copy)
        self._writer.write(as_bytes(chunk), copy)

    def write_rows(self, rows: Bytes, row_bytes: int, stride_bytes: int) -> None:
        """Appends rows that lie one after the other, each followed by zeros up to the stride."""
        view = as_bytes(rows)
        if not 0 < row_bytes <= stride_bytes or view.nbytes % row_bytes:
            raise ConfigError(
                f"{view.nbytes} bytes are no rows of {row_bytes} bytes every {stride_bytes}"
            )
        self._writer.write_rows(view, row_bytes, stride_bytes)

    def write_samples(
        self, starts: list[int], sizes: list[int], columns: Sequence[tuple[list[int], Any]]
    ) -> list[int]:
        """Appends samples that are put together from pieces, with zeros wherever there is none.

        Args:
            starts: Where each begins in the file, behind the one before.
            sizes: Bytes of each.
            columns: In the order of their places ``(begins, pieces)``: where a piece begins within
                each sample; and a list of buffers, or ``(buffer, begins, ends)``, what each sample
                has of one buffer.

        Returns:
            The CRC-32C of each sample.
        """
        return self._writer.write_samples(starts, sizes, columns)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    def finish(self) -> WrittenObject:
        """Completes the file and gives it its name. Once finished, returns the same again.

        Raises:
            NoSpaceError, WriteError, WriteTimeoutError: The text says so where the new file is in
                place, or where that is unknown. The writer is cancelled then.
        """
        if self._written is None:
            self._written = WrittenObject(*self._writer.finish())
            self._after_write(self.path)
        return self._written

    def cancel(self) -> None:
        """Removes what was written, and ends the call that another thread is in.

        Does nothing to a finished file, nor to one whose ``finish`` in another thread is in its
        last steps and comes to an end within a second: that call returns as if alone.
        """
        self._writer.cancel()

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.cancel()

    def __repr__(self) -> str:
        return f"ObjectWriter({self.path!r})"


def refuse_masked(array: np.ndarray[Any, Any], what: str) -> None:
    """Raises ConfigError where values of ``what`` are masked, which bytes cannot say."""
    mask = np.ma.getmask(array)  # of a structured array: a bool for every value of a record
    if np.ascontiguousarray(mask).view(np.bool_).any():
        raise ConfigError(f"{what}: masked values are not written; fill them first (.filled())")


def as_bytes(data: Bytes) -> memoryview:
    """The bytes of a tensor, an array, or anything with a contiguous buffer, without a copy (but
    of tensors that torch has still to conjugate or negate).

    Raises:
        ConfigError: There are none, or they do not lie together.
    """
    if isinstance(data, torch.Tensor):
        is_dense = not data.is_nested and data.layout == torch.strided
        if not is_dense or data.device.type != "cpu" or not data.is_contiguous():
            raise ConfigError(
                "only dense, contiguous CPU tensors are written; call .cpu().contiguous()"
            )
        data = data.detach().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(data, np.ndarray):
        if not data.flags.c_contiguous or data.dtype.hasobject:
            raise ConfigError(
                "only contiguous arrays without Python objects are written; call "
                "numpy.ascontiguousarray(array)"
            )
        refuse_masked(data, "data")
        data = data.reshape(-1).view(np.uint8)
    try:
        view = memoryview(data)
    except TypeError:
        raise ConfigError(f"only bytes, arrays and tensors are written, not {data!r}") from None
    if not view.contiguous:
        raise ConfigError("only bytes that lie together are written; bytes(data) copies them so")
    return view.cast("B") if view.nbytes else memoryview(b"")
