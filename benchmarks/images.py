"""The same samples in every format: files in folders, tar archives, TFRecords, and our own shards.

A sample is bytes of a log-normal length, as JPEG files have them, and a label.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from common import progress

MEAN_BYTES, SIGMA = 110_000, 0.5
CLASSES = 100
SHARDS = 50  # of tars and TFRecords; of 220 MB where there are 100,000 samples
BATCH = 256


@dataclass(frozen=True)
class Images:
    """Written once, format by format, where they are not there yet."""

    folder: Path
    count: int

    @cached_property
    def lengths(self) -> list[int]:
        random = np.random.default_rng(1)
        drawn = random.lognormal(-(SIGMA**2) / 2, SIGMA, self.count) * MEAN_BYTES
        return [int(length) for length in drawn]

    @property
    def per_shard(self) -> int:
        return -(-self.count // SHARDS)

    @cached_property
    def total_bytes(self) -> int:
        return sum(self.lengths)

    def samples(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, label and bytes of each."""
        content = np.random.default_rng(2).bytes(2 * max(self.lengths))
        for number, length in enumerate(progress(self.lengths, self.count, "writing samples")):
            start = number * 4099 % max(self.lengths)
            yield number, number % CLASSES, content[start : start + length]

    def files(self) -> list[Path]:
        folder = self._made("files", self._write_files)
        return [
            folder / f"n{number % CLASSES:08}" / f"{number:08}.jpg" for number in range(self.count)
        ]

    def tars(self) -> list[Path]:
        return sorted(self._made("tars", self._write_tars).glob("*.tar"))

    def dali_indexes(self) -> list[Path]:
        """As DALI's wds2idx writes them: a line for each sample, "field offset bytes name ..."."""
        folder = self._made("dali-indexes", self._write_dali_indexes)
        return sorted(folder.glob("*.idx"))

    def tfrecords(self) -> list[Path]:
        return sorted(self._made("tfrecords", self._write_tfrecords).glob("*.tfrecord"))

    def shards(self) -> list[Path]:
        return sorted(self._made("shards", self._write_shards).glob("*.bin"))

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        folder = self.folder / f"{name}-{self.count}"
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write(part)
            part.rename(folder)
        return folder

    def _write_files(self, folder: Path) -> None:
        for number in range(CLASSES):
            (folder / f"n{number:08}").mkdir()
        for number, label, data in self.samples():
            (folder / f"n{label:08}" / f"{number:08}.jpg").write_bytes(data)

    def _write_tars(self, folder: Path) -> None:
        """As webdataset writes them: a pax header, for the time of change, before each member."""
        for number, label, data in self.samples():
            if number % self.per_shard == 0:
                path = folder / f"{number // self.per_shard:06}.tar"
                archive = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            for field, content in (("jpg", data), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{number:08}.{field}")
                info.size, info.mtime = len(content), 1700000000.25
                archive.addfile(info, io.BytesIO(content))
            if (number + 1) % self.per_shard == 0 or number + 1 == self.count:
                archive.close()

    def _write_dali_indexes(self, folder: Path) -> None:
        for path in self.tars():
            with tarfile.open(path, "r:") as archive:
                members = [member for member in archive if member.isreg()]
            parts = [
                f"{member.name.split('.')[1]} {member.offset_data} {member.size} {member.name}"
                for member in members
            ]
            lines = [
                f"{first} {second}" for first, second in zip(parts[::2], parts[1::2], strict=True)
            ]
            text = "\n".join([f"v1.2 {len(lines)}", *lines])
            (folder / f"{path.stem}.idx").write_text(text + "\n")

    def _write_tfrecords(self, folder: Path) -> None:
        import tensorflow as tf

        for number, _, data in self.samples():
            if number % self.per_shard == 0:
                writer = tf.io.TFRecordWriter(
                    str(folder / f"{number // self.per_shard:06}.tfrecord")
                )
            writer.write(data)
            if (number + 1) % self.per_shard == 0 or number + 1 == self.count:
                writer.close()

    def _write_shards(self, folder: Path) -> None:
        import torch_s3io as s3io

        with s3io.SampleWriter(folder, fields={"jpg": bytes, "label": np.int64}) as writer:
            for _, label, data in self.samples():
                writer.write({"jpg": data, "label": label})
