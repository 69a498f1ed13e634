"""A file that is put together from pieces, each copied once, in chunks that go out from where they
lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import _C
from ..config import MIB, BufferPoolConfig
from ..memory import BufferPool
from ..store.object_writer import ObjectWriter
from .sample_columns import Column

_CHUNK = MIB
# A file holds at most eight chunks: those of the one that is being synced, those of the next one,
# and the chunk that is being filled.
_CHUNKS = BufferPoolConfig(capacity=8 + 8 + 1, buffer_size=_CHUNK)


class SampleStream:
    """Appends to one file after the other; what lies between the pieces is zeros.

    One thread at a time. Makes its memory with the first piece.
    """

    def __init__(self) -> None:
        self._pool: BufferPool | None = None
        self._chunk: torch.Tensor | None = None
        self._view = memoryview(b"")  # of the chunk
        self._base = 0  # where the chunk begins in the file

    def add(
        self,
        file: ObjectWriter,
        starts: Sequence[int],
        sizes: Sequence[int],
        columns: Sequence[Column],
    ) -> list[int]:
        """Puts samples at these bytes, each behind the one before. Gives the CRC-32C of each.

        Args:
            columns: Of which the first ``len(starts)`` samples are put.
        """
        sums, crc32c = [], _C.crc32c
        base, view = self._base, self._view
        for number, (start, size) in enumerate(zip(starts, sizes, strict=False)):
            while start >= base + len(view):
                self._next_chunk(file)
                base, view = self._base, self._view
            at = start - base
            if at + size > _CHUNK:
                sums.append(self._add_over_chunks(file, start, size, columns, number))
                base, view = self._base, self._view
                continue
            for begins, pieces in columns:
                piece = pieces[number]
                begin = at + begins[number]
                view[begin : begin + len(piece)] = piece
            sums.append(crc32c(view[at : at + size]))
        return sums

    def _add_over_chunks(
        self, file: ObjectWriter, start: int, size: int, columns: Sequence[Column], number: int
    ) -> int:
        crc = 0

        def go_to(offset: int) -> int:
            """The place of a byte in the chunk, once it is the one that has it."""
            nonlocal crc
            while offset >= self._base + _CHUNK:
                crc = _C.crc32c(self._view[max(0, start - self._base) :], crc)
                self._next_chunk(file)
            return offset - self._base

        for begins, pieces in columns:
            piece = memoryview(pieces[number])
            offset = start + begins[number]
            while len(piece):
                at = go_to(offset)
                count = min(len(piece), _CHUNK - at)
                self._view[at : at + count] = piece[:count]
                piece, offset = piece[count:], offset + count
        end = go_to(start + size - 1) + 1
        return _C.crc32c(self._view[max(0, start - self._base) : end], crc)

    def _next_chunk(self, file: ObjectWriter) -> None:
        """Lends the chunk to the file, if there is one, and takes another one."""
        if self._pool is None:
            self._pool = BufferPool(_CHUNKS)
        if self._chunk is not None:
            self._base += _CHUNK
            self._lend(file, _CHUNK)
        self._chunk = self._pool.take().tensor()
        array = self._chunk.numpy()
        array.fill(0)
        self._view = array.data

    def end(self, file: ObjectWriter, size_bytes: int) -> None:
        """Hands the last bytes of the file over; the next piece begins another file."""
        self._lend(file, size_bytes - self._base)
        self._base = 0

    def _lend(self, file: ObjectWriter, count: int) -> None:
        chunk, self._chunk, self._view = self._chunk, None, memoryview(b"")
        assert chunk is not None
        file.write(chunk[:count], copy=False)
