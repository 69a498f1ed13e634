"""The documents of a data set of tokens, and those of them that a view has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _C
from ...errors import FileChangedError
from ..objects import Objects
from .document_table import DocumentTable, TokenFile

# A view's records: see torch_s3io/order/record_order.py.
Stages = Sequence[tuple[int, int, tuple[int, int] | None]]


class Corpus:
    """Documents, numbered through the files.

    Pickled without its tables, which are found anew.

    Attributes:
        objects: The files; their records are documents.
        dtype: Of a token.
        num_tokens: Of all documents.
        longest: Of the documents, in tokens.
        identities: For JSON, of each file: tells its documents from others.
    """

    def __init__(self, files: Sequence[TokenFile]) -> None:
        self.objects = Objects.of([file.shard for file in files])
        self.dtype: np.dtype[Any] = files[0].dtype
        self.num_tokens = sum(file.num_tokens for file in files)
        self.longest = max(file.longest for file in files)
        self.identities = [file.identity for file in files]
        self._loads = [file.load for file in files]
        self._tables: list[DocumentTable] | None = [file.table for file in files]

    @property
    def num_documents(self) -> int:
        return self.objects.total_records

    @property
    def mean_bytes(self) -> int:
        """Of a document; at least 1."""
        return max(1, self.num_tokens * self.dtype.itemsize // max(1, self.num_documents))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None}

    def tables(self) -> list[DocumentTable]:
        """Raises FileChangedError where there are other documents than were found at first."""
        if self._tables is None:
            tables = [load() for load in self._loads]
            for number, table in enumerate(tables):
                if table.facts()[2] != self.identities[number]:
                    raise FileChangedError(
                        f"{self.objects.path(number)}: has other documents than when the data set "
                        "was made: make it anew"
                    )
            self._tables = tables
        return self._tables

    def to_core(self, view: Stages = ()) -> _C.Documents:
        """Those that a view has."""
        selected = None
        if view:
            selected = _C.RecordOrder.sequential(view[0][1]).select(stages=list(view))
        ends = self.objects.versions["size_bytes"].tolist()
        return _C.Documents(
            objects=[
                _C.DocumentColumns(
                    num_documents=len(table.starts),
                    starts=table.starts.view(np.uint8).data,
                    lengths=table.lengths.view(np.uint8).data,
                    length_bytes=table.lengths.itemsize,
                    end=end,
                )
                for table, end in zip(self.tables(), ends, strict=True)
            ],
            token_bytes=self.dtype.itemsize,
            selected=selected,
        )
