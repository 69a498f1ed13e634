"""Data sets of samples of any length, written as shards with tables and a manifest."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import _C
from ..config import MIB, EngineKind, FileSystemConfig, check_alignment, check_int
from ..errors import ConfigError, WriteError
from ..format.sample_layout import MOST_ALIGNMENT, TABLE_ALIGNMENT, make_sample_layout
from ..format.sample_table import needed_length_bytes, pack_table
from ..format.samples import ALIGNMENTS, SampleManifest, SampleShard
from ..keywords import checks_keywords
from ..store.object_writer import ObjectWriter, WrittenObject
from ..store.stores import StoreSetting
from .folder_writer import FolderWriter
from .record_rows import describe
from .record_writer import BLOCKS, MOST_PADDING_PERCENT
from .sample_columns import Column, SampleForm, Samples

AlignSamples = Literal["auto"] | int | None

_AT_ONCE = 4096  # samples that go out together: what is kept of each for that stays little
_MOST_SHARD_BYTES = 1 << 62


class _Contents(NamedTuple):
    """What a shard contains; its name and checksum are known when it is whole."""

    num_samples: int
    size_bytes: int
    table_offset: int
    length_bytes: int
    table_crc32c: int


class _OpenShard:
    """The samples of the shard that is being written, as its table will have them."""

    def __init__(self, num_ragged: int) -> None:
        self.starts = array("Q")
        self.crc32c = array("I")
        self.lengths = [array("Q") for _ in range(num_ragged)]


@checks_keywords
class SampleWriter(FolderWriter[SampleManifest]):
    """Writes a data set of samples of any length into a folder: shards and a manifest.

    A context manager::

        fields = {"image": bytes, "tokens": (np.uint16, (None,)), "label": np.int64}
        with SampleWriter("train", fields=fields) as writer:
            for image, tokens, label in samples:  # bytes, uint16 [n], int
                writer.write({"image": image, "tokens": tokens, "label": label})

    Leaving the block finishes the data set; an exception cancels it. What RecordWriter promises of
    failures, of old data sets and of other files in the folder holds here, too.
    ``docs/format.md`` has the format. Each sample has a checksum.

    Thread-safe: the batches of several threads come one after the other, each of them whole, in the
    order in which the calls got their turn.

    Args:
        folder: Made if it is not there. One that holds a data set is refused, unless ``overwrite``.
            Or ``s3://bucket/prefix``: there are no locks there, and what a killed writer left
            stays. Of two that write there at once without ``overwrite``, one fails.
        fields: What every sample has, by name. A dtype of numpy or torch: one number. ``(dtype,
            shape)``: an array; None in the shape is an axis that may have another length in every
            sample, as in ``(np.uint8, (None, None, 3))``. ``bytes``: uint8 of any length; ``str``:
            the same, a text in UTF-8.
        shard_bytes: Size of a shard with its table, in bytes; at least one sample goes into each.
        align_samples: Samples begin at multiples of this, in bytes, at least 16, with zeros in
            between: direct reads of single samples then read less beside them. ``"auto"``: a
            sample begins at a multiple of 4096, or else of 512, as long as all zeros between
            samples so far stay under 3 % of the samples' bytes; None: of 16.
        config: How the files are written; checksums are computed in any case. A pool needs two
            buffers: while a shard is synced, the next one is begun. None: directly where possible,
            from two buffers of 10 MiB.
        engine: As for FileStore.
        overwrite: Take the place of the data set that the folder holds, once this one is whole.
        store: An S3Config, how the bucket of ``s3://bucket/prefix`` is reached, or what
            ``open_store`` gives. None: as the environment says. A FileStore stands for its
            ``config`` and ``engine``.

    Raises:
        ConfigError: Arguments that cannot work; a data set is there already; another writer is at
            work in the folder, or another program's manifest.json lies there.
        AccessError, NoSpaceError, WriteError: As for ``FileStore.put``.
    """

    _kind = "samples"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fields: Mapping[str, Any],
        shard_bytes: int = 256 * MIB,
        align_samples: AlignSamples = "auto",
        config: FileSystemConfig | None = None,
        engine: EngineKind = "auto",
        overwrite: bool = False,
        store: StoreSetting = None,
    ) -> None:
        check_int("shard_bytes", shard_bytes, 1)
        self._layout = make_sample_layout(fields)
        texts = frozenset(name for name, kind in fields.items() if kind is str)
        self._form = SampleForm(self._layout, texts)
        blocks, alignment = _alignments(align_samples)
        self._places = _C.SamplePlaces(
            blocks=blocks,
            most_padding_percent=MOST_PADDING_PERCENT,
            alignment=alignment,
            shard_bytes=min(shard_bytes, _MOST_SHARD_BYTES),
            index_bytes=self._layout.index_bytes(4),
        )
        self._shards: list[SampleShard] = []
        self._samples = _OpenShard(len(self._layout.ragged))
        self._num_samples = self._largest = 0
        self._sum_of_squares = 0.0
        self._all_starts = 0  # their bits
        self._largest_lengths = [[0] * len(field.open_axes) for field in self._layout.ragged]
        super().__init__(folder, config, engine, overwrite, store)

    @property
    def num_samples(self) -> int:
        """Samples written so far."""
        return self._num_samples

    @property
    def replaced_samples(self) -> int:
        """Samples of the data set that this one takes the place of; 0 where none can be read."""
        return self.replaced.num_samples if isinstance(self.replaced, SampleManifest) else 0

    def write(self, sample: Mapping[str, Any]) -> None:
        """Appends one sample.

        Args:
            sample: A dict ``{field: value}``. Of a number, one of Python that the dtype can hold,
                or one of the dtype; of an array, an array or tensor of the dtype; of ``bytes`` also
                anything with bytes that lie together; of ``str`` a str. Dtypes are not converted,
                byte orders are.

        The error of a shard that cannot be completed may come with a later call, or ``finish``. The
        writer is cancelled then; further calls raise an error of the same type (WriteError for one
        that is not ours), which says so.
        """
        self._check_open()
        self._append(self._form.of_sample(sample))

    def write_batch(self, samples: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> None:
        """Appends several samples: all, or none where a value is refused.

        Args:
            samples: A list of dicts as ``write`` takes them; or one dict ``{field: values of all
                samples}``: a list, an array or tensor ``[B, ...]``, a nested tensor, or what has
                ``values`` [N, *item], ``starts`` and ``lengths`` [B].
        """
        self._check_open()
        if isinstance(samples, Mapping):
            self._append(self._form.of_columns(samples))
            return
        if not isinstance(samples, Iterable):
            raise ConfigError(
                "a list of dicts, or a dict of lists or arrays, is expected, not "
                f"{describe(samples)}"
            )
        self._append(self._form.of_samples(list(samples)))

    def _append(self, samples: Samples) -> None:
        with self._turn():
            begin, count = 0, len(samples.sizes)
            while begin < count:
                most = min(begin + _AT_ONCE, count)
                end = begin + self._put_into_shard(samples.part(begin, most))
                if end < most:
                    self._end_shard()
                    self._check_open()
                begin = end

    def _put_into_shard(self, samples: Samples) -> int:
        """Writes the first ones, for which the shard has room. Gives their number."""
        shard, here = self._open_shard(), self._samples
        starts = self._places.add(samples.sizes)
        count = len(starts)
        samples = samples.part(0, count)
        here.crc32c.extend(shard.write_samples(starts, samples.sizes, samples.columns))
        here.starts.extend(starts)
        for kept, lengths in zip(here.lengths, samples.lengths, strict=True):
            kept.frombytes(lengths.tobytes())
        self._num_samples += count
        return count

    def _end_shard(self) -> None:
        shard, here, layout = self._open_shard(), self._samples, self._layout
        starts = np.frombuffer(here.starts, np.uint64)
        lengths = [
            np.frombuffer(column, np.uint64).reshape(len(starts), -1) for column in here.lengths
        ]
        self._take_note(starts, lengths)
        length_bytes = needed_length_bytes(lengths)
        table = pack_table(starts, lengths, np.frombuffer(here.crc32c, np.uint32), length_bytes)
        offset = -(-self._places.end // TABLE_ALIGNMENT) * TABLE_ALIGNMENT
        (crc32c,) = shard.write_samples([offset], [len(table)], [Column([0], [table])])
        self._samples = _OpenShard(len(layout.ragged))
        self._places.begin_shard()
        contents = _Contents(len(starts), offset + len(table), offset, length_bytes, crc32c)
        self._finish_shard(contents)

    def _take_note(self, starts: np.ndarray[Any, Any], lengths: list[np.ndarray[Any, Any]]) -> None:
        """Adds the samples of a shard to what the manifest says of all."""
        self._all_starts |= int(np.bitwise_or.reduce(starts))
        for largest, column in zip(self._largest_lengths, lengths, strict=True):
            largest[:] = map(max, largest, column.max(axis=0).tolist())
        sizes = self._layout.places(len(starts), lengths)[1][0]
        self._largest = max(self._largest, int(sizes.max()))
        self._sum_of_squares += float(np.square(sizes, dtype=np.float64).sum())

    def _add_shard(self, shard: ObjectWriter, contents: _Contents, written: WrittenObject) -> None:
        assert written.crc32c is not None
        if written.size_bytes != contents.size_bytes:
            raise WriteError(
                f"{shard.path}: has {written.size_bytes} bytes, but its samples and their table "
                f"take {contents.size_bytes}; the data set is not put in place"
            )
        self._shards.append(
            SampleShard(
                os.path.basename(shard.path),
                contents.num_samples,
                contents.size_bytes,
                contents.table_offset,
                contents.length_bytes,
                contents.table_crc32c,
                written.crc32c,
            )
        )

    def _has_any(self) -> bool:
        return self._num_samples > 0

    def _manifest(self) -> SampleManifest:
        mean = self._places.data_bytes // self._num_samples
        rms = int(math.sqrt(self._sum_of_squares / self._num_samples))
        return SampleManifest(
            layout=self._layout,
            alignment=_common_alignment(self._all_starts),
            data_bytes=self._places.data_bytes,
            largest_sample_bytes=self._largest,
            rms_sample_bytes=min(max(rms, mean), self._largest),
            largest_lengths=tuple(map(tuple, self._largest_lengths)),
            shards=tuple(self._shards),
        )

    def __repr__(self) -> str:
        return f"SampleWriter({self._folder.path!r}, {self.num_samples} samples)"


def _alignments(align_samples: AlignSamples) -> tuple[Sequence[int], int]:
    """What starts are aligned to where the padding is little, and what they always are."""
    if align_samples == "auto":
        return BLOCKS, MOST_ALIGNMENT
    if align_samples is None:
        return (), MOST_ALIGNMENT
    check_alignment("align_samples", align_samples)
    if align_samples < MOST_ALIGNMENT:
        raise ConfigError(
            f"align_samples must be {MOST_ALIGNMENT} at least, not {align_samples}; None aligns to "
            f"{MOST_ALIGNMENT}"
        )
    return (), align_samples


def _common_alignment(starts: int) -> int:
    """The largest one of all starts, of which the bits are given."""
    return next(alignment for alignment in reversed(ALIGNMENTS) if starts % alignment == 0)
