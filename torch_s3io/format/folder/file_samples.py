"""Files as samples: each is the bytes of a sample, as it lies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ...index.place import Where
from ..objects import Column
from ..paths import Paths
from ..sample_format import Samples
from ..sample_layout import SampleField, SampleLayout
from ..sample_records import SampleSizes, TablePlace
from ..sample_table import SampleTable
from .listing import list_files
from .table_fields import Labels, Stored, array_of, table_fields

DATA = "data"


def file_samples(
    paths: Paths, labels: Labels, columns: Mapping[str, Any] | None, where: Where
) -> Samples:
    """The samples of ``SampleDataset.from_files``.

    Raises:
        NotFoundError, AccessError: As for ``list_files``.
        DataError: ``labels="folder"`` and a file that lies in no folder.
        ConfigError: Labels or columns that do not go with the files.
    """
    listing = list_files(paths, where)
    given = table_fields(listing, labels, columns, [DATA])
    sizes = listing.sizes()
    return Samples(
        SampleLayout((SampleField(DATA, "uint8", False, (None,), -1), *given.fields), 0),
        listing.objects,
        [TablePlace(partial(table_of_files, sizes, tuple(given.values)))],
        sizes=[_sizes(array_of(sizes))],
        classes=given.classes,
        keys=listing.keys,
    )


def table_of_files(sizes: Stored, values: tuple[Stored, ...]) -> SampleTable:
    """Each file is a sample as a whole.

    Args:
        sizes: Of the files: uint64 [n].
        values: Of the fields that do not lie in the files: [n, *shape].
    """
    ends = array_of(sizes)
    return SampleTable((None,), (ends[:, None],), values=tuple(map(array_of, values)), ends=ends)


def _sizes(sizes: Column) -> SampleSizes:
    total = int(sizes.sum())
    return SampleSizes(len(sizes), total, int(sizes.max(initial=0)), total)
