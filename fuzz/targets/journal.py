"""The journal of a pack that was killed: whatever it says, the shards come out the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from torch_s3io.format.manifest import MANIFEST_NAME, parse_manifest
from torch_s3io.writing.pack_run import run_pack
from torch_s3io.writing.packing import PackJob
from torch_s3io.writing.record_folder import JOURNAL_PREFIX
from torch_s3io.writing.sources import find_sources

ALLOWS = ["os.remove"]  # the journal itself, once the job is done
TOKENS = [
    *(b'"name"', b'"num_records"', b'"size_bytes"', b'"crc32c"', b"{", b"}", b":", b",", b"\n"),
    *(b'"../x"', b'"manifest.json"', b'"00000000"', b"NaN"),
]
_RECORDS, _PER_SHARD = 8, 3


def make(folder: Path) -> Callable[[bytes], None]:
    source = folder / "x.npy"
    np.save(source, np.arange(_RECORDS, dtype="u1").reshape(-1, 1))
    output = folder / "packed"
    job = PackJob.of(find_sources([str(source)], str(output)), str(output), _PER_SHARD, None)
    run_pack(job, 1, lambda count: None)
    wanted = (output / MANIFEST_NAME).read_bytes()
    journal = output / f"{JOURNAL_PREFIX}{job.fingerprint()[:32]}.jsonl"
    # The names of shards change with every folder; in the corpus they have numbers alone.
    names = [shard.name.encode() for shard in parse_manifest(wanted, "").shards]

    def read(data: bytes) -> None:
        for number, name in enumerate(names):
            data = data.replace(b"$%d" % number, name)
        journal.write_bytes(data)
        (output / MANIFEST_NAME).unlink(missing_ok=True)
        run_pack(job, 1, lambda count: None)
        assert (output / MANIFEST_NAME).read_bytes() == wanted
        packed = b"".join((output / name.decode()).read_bytes() for name in names)
        assert packed == bytes(range(_RECORDS))

    return read
