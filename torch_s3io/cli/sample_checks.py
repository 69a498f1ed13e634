"""What ``verify`` says of a shard of samples, besides the checksum of its file."""

from __future__ import annotations

from collections.abc import Iterator

from .. import _C
from ..errors import Error
from ..format.sample_table import SampleTable, load_table, samples_in
from ..format.samples import SampleManifest, SampleShard
from ..store.stores import store_of
from ..wording import count_of, listed


def table_differences(
    path: str, shard: SampleShard, manifest: SampleManifest, is_damaged: bool
) -> Iterator[str]:
    """Lines about its table, and where the file is damaged, about the samples that differ."""
    try:
        table = load_table(path, shard, manifest)
        if is_damaged:
            yield _samples_that_differ(path, table, shard, manifest)
    except Error as error:
        yield f"DAMAGED: {error}"


def _samples_that_differ(
    path: str, table: SampleTable, shard: SampleShard, manifest: SampleManifest
) -> str:
    assert table.crc32c is not None
    wrong = []
    store = store_of(path)
    for number, (start, end) in enumerate(samples_in(table, manifest.layout)):
        if _C.crc32c(store.read(path, start, end)) != table.crc32c[number]:
            wrong.append(number)
    if not wrong:
        return f"{path}: its samples and its table are as they were written; zeros between differ"
    shards = manifest.shards
    first = sum(other.num_samples for other in shards[: shards.index(shard)])
    in_set = listed([str(first + number) for number in wrong])
    return (
        f"{path}: DAMAGED: {count_of(len(wrong), 'sample')} of {shard.num_samples} in it: "
        f"{listed(list(map(str, wrong)))}; in the data set: {in_set}"
    )
