"""Samples of arrays of numpy: of ``.npy`` files and ``.npz`` archives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...wording import is_text, short
from ..layout import make_layout
from ..objects import Column
from ..paths import Paths
from ..sample_format import Samples
from ..sample_layout import SampleField, SampleLayout
from ..sample_records import SampleSizes, TablePlace
from ..sample_table import SampleTable, needed_length_bytes
from .array_files import ArrayColumn, Shape, npy_column, npz_columns
from .listing import Listing, list_files
from .table_fields import Labels, TableFields, array_of, in_table, table_fields

_DATA = "data"


def npy_samples(
    paths: Paths, dtype: Any, shape: Any, labels: Labels, columns: Mapping[str, Any] | None
) -> Samples:
    """The samples of ``SampleDataset.from_npy_files``."""
    listing = list_files(paths)
    given = table_fields(listing, labels, columns, [_DATA])
    return _samples(listing, [npy_column(_DATA, listing)], given, dtype, _checked_shape(shape))


def npz_samples(
    paths: Paths, fields: Sequence[str], labels: Labels, columns: Mapping[str, Any] | None
) -> Samples:
    """The samples of ``SampleDataset.from_npz``."""
    is_list = isinstance(fields, Iterable)
    names = [fields] if isinstance(fields, str) else list(fields) if is_list else []
    if not names or not all(is_text(name) and name for name in names):
        raise ConfigError(
            f"fields= has the names of the arrays to read, such as ('image', 'mask'), not "
            f"{short(fields)}"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"fields={short(fields)}: has a name twice")
    listing = list_files(paths)
    given = table_fields(listing, labels, columns, names)
    return _samples(listing, npz_columns(names, listing), given, None, None)


def table_of_arrays(
    starts: tuple[Column, ...],
    lengths: tuple[Column, ...],
    values: tuple[Column, ...],
    ends: Column,
) -> SampleTable:
    return SampleTable(starts, lengths, values=values, ends=ends)


def _samples(
    listing: Listing,
    columns: Sequence[ArrayColumn],
    given: TableFields,
    dtype: Any,
    shape: Shape | None,
) -> Samples:
    fields: list[SampleField] = []
    values: list[Column] = []
    ragged: list[ArrayColumn] = []
    for column in columns:
        if column.is_of_numbers:
            numbers = column.as_numbers(listing.objects)
            stored = make_layout(numbers.dtype).fields[0].stored
            fields.append(in_table(column.name, stored, ()))
            values.append(numbers)
        else:
            fields.append(column.as_field(listing.objects, dtype, shape, piece=len(ragged)))
            ragged.append(column)
    if not ragged:
        names = ", ".join(short(column.name) for column in columns)
        raise ConfigError(
            f"fields=: there are only single numbers in the archives ({names}); read one array at "
            "least"
        )
    of_ragged = [field for field in fields if field.is_ragged]
    lengths = [one.lengths(field) for one, field in zip(ragged, of_ragged, strict=True)]
    kind = f"<u{needed_length_bytes(lengths)}"
    starts = [np.array(one.starts, np.uint64) for one in ragged]
    layout = SampleLayout(
        (*fields, *given.fields),
        0,
        realigns=any(
            bool((column % np.uint64(field.alignment)).any())
            for column, field in zip(starts, of_ragged, strict=True)
        ),
    )
    ends = np.ascontiguousarray(listing.objects.versions["size_bytes"]).view(np.uint64)
    load = partial(
        table_of_arrays,
        tuple(starts),
        tuple(np.ascontiguousarray(column, kind) for column in lengths),
        (*values, *map(array_of, given.values)),
        ends,
    )
    table = load()
    return Samples(
        layout,
        listing.objects,
        [TablePlace(load)],
        tables=[table],
        sizes=[SampleSizes.of([table], layout)],
        classes=given.classes,
        keys=listing.keys,
    )


def _checked_shape(shape: Any) -> Shape | None:
    if shape is None:
        return None
    items = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if None not in items or not all(one is None or (type(one) is int and one > 0) for one in items):
        raise ConfigError(
            f"shape= is a tuple of extents, with None for axes of any length, one at least, not "
            f"{short(shape)}. Arrays of one shape are read by "
            "RecordDataset.from_npy(paths, records='files')"
        )
    return items
