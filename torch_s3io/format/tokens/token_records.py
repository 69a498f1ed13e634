"""Windows of tokens, and whole documents, as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ... import _C
from ...errors import ConfigError
from ...wording import count_of, size_text
from ..layout import Field
from ..objects import Objects
from ..ragged import unchecked_ragged
from ..records import FieldInfo, Mismatch
from ..varying_records import VaryingRecords
from .corpus import Corpus, Stages

if TYPE_CHECKING:
    from typing_extensions import Self

Kind = Literal["windows", "documents", "padded"]
Names = Literal["transformers", "flash_attn"]

_NAMES = {
    "transformers": ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
    "flash_attn": ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k"),
}
assert set(_NAMES) == set(get_args(Names))
_KEPT_BYTES = 64 << 20  # of the sums of blocks of documents
_BYTES_PER_DOCUMENT = 10


@dataclass(frozen=True)
class TokenForm:
    """What the records are, and how they are delivered.

    Attributes:
        token: As it is stored and delivered.
        kind: Windows of the stream of all documents; documents; or these as a tensor.
        window: Tokens of a window.
        stride: Tokens from one window's start to the next one's.
        names: Of the batch's entries that say where documents begin; None: there are none.
    """

    token: Field
    kind: Kind = "windows"
    window: int = 1
    stride: int = 1
    names: Names | None = None


class Part:
    """The documents of one data set; of windows, as a stream.

    Args:
        corpus: Of its files.
        view: Which of them.
        block_documents: That come together, and are shuffled.
        is_shuffled: Whether an order of documents is made for every epoch.
        seed: Of that.
        mixed_blocks: So many come at a time.
    """

    def __init__(
        self,
        corpus: Corpus,
        view: Stages = (),
        block_documents: int = 1,
        is_shuffled: bool = False,
        seed: int = 0,
        mixed_blocks: int = 1,
    ) -> None:
        self.corpus = corpus
        self.block_documents = block_documents
        self.mixed_blocks = mixed_blocks
        self._view = view
        self._is_shuffled = is_shuffled
        self._seed = seed
        self._documents: _C.Documents | None = None
        self._blocks: _C.DocumentBlocks | None = None

    # Made once in each process that was not forked from one that has them.

    def documents(self) -> _C.Documents:
        if self._documents is None:
            self._documents = self.corpus.to_core(self._view)
        return self._documents

    def blocks(self) -> _C.DocumentBlocks:
        """Looks at the length of every document."""
        if self._blocks is None:
            self._blocks = _C.DocumentBlocks(
                documents=self.documents(),
                block_documents=self.block_documents,
                is_shuffled=self._is_shuffled,
                seed=self._seed,
            )
        return self._blocks

    def windows(self, form: TokenForm) -> int:
        tokens = self.blocks().num_tokens
        return 0 if tokens < form.window else (tokens - form.window) // form.stride + 1

    def unused_tokens(self, form: TokenForm) -> int:
        count = self.windows(form)
        covered = (count - 1) * form.stride + max(form.window, form.stride) if count else 0
        return max(0, self.blocks().num_tokens - covered)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_documents": None, "_blocks": None}


class TokenRecords(VaryingRecords):
    """The records of one data set of tokens, or of several."""

    kind_advice = (
        "give a TokenDataset for each of its parts: TokenDataset(paths, dtype=..., window=...) "
        "reads what from_tokens reads"
    )
    most_batches = 64  # windows hardly differ, and each may need another block's sums

    def __init__(self, parts: Sequence[Part], form: TokenForm) -> None:
        self.noun = "window" if form.kind == "windows" else "document"
        self.objects = Objects.joined([part.corpus.objects for part in parts])
        self._parts = parts
        self._form = form

    @property
    def _is_windows(self) -> bool:
        return self._form.kind == "windows"

    @property
    def _token_bytes(self) -> int:
        return self._parts[0].corpus.dtype.itemsize

    @property
    def num_records(self) -> int:
        if not self._is_windows:
            return self.objects.total_records
        return sum(part.windows(self._form) for part in self._parts)

    @property
    def unused_bytes(self) -> int:
        if not self._is_windows:
            return 0
        return sum(part.unused_tokens(self._form) for part in self._parts) * self._token_bytes

    @property
    def record_bytes(self) -> int:
        if self._is_windows:
            return self._form.window * self._token_bytes
        tokens = sum(part.corpus.num_tokens for part in self._parts)
        return tokens * self._token_bytes // max(1, self.num_records)

    @property
    def spacing_bytes(self) -> int:
        return max(
            1, self._form.stride * self._token_bytes if self._is_windows else self.record_bytes
        )

    @property
    def fields(self) -> Sequence[FieldInfo]:
        dtype = self._form.token.output_dtype
        if self._form.names is None:
            return [FieldInfo("", dtype, (self._form.window if self._is_windows else None,))]
        ends, other_ends = _NAMES[self._form.names][:2]
        return [
            FieldInfo("input_ids", dtype, (self._form.window,)),
            FieldInfo("position_ids", torch.int64, (self._form.window,)),
            FieldInfo(ends, torch.int32, (None,)),
            FieldInfo(other_ends, torch.int32, (None,)),
        ]

    @property
    def described(self) -> str:
        if self._is_windows:
            return count_of(self._form.window, "token")
        return f"{size_text(self.record_bytes)} on average"

    def identity(self) -> list[Any]:
        form = self._form
        token = replace(form.token, output=form.token.stored)
        counts = self.objects.num_records.tolist()
        windows = [form.window, form.stride] if self._is_windows else []
        return [token.stored, token.swap_bytes, self._is_windows, windows, counts]

    def contents(self) -> list[Any]:
        return [identity for part in self._parts for identity in part.corpus.identities]

    def make_form(self, alignment: int, with_record_numbers: bool) -> _C.TokenForm:
        form = self._form
        return _C.TokenForm(
            objects=self.objects.to_core(),
            documents=[part.documents() for part in self._parts],
            blocks=[part.blocks() for part in self._parts] if self._is_windows else [],
            token=form.token.to_core(),
            records=form.kind,
            window=form.window,
            stride=form.stride,
            with_documents=form.names is not None,
            longest=max(part.corpus.longest for part in self._parts),
            kept_blocks=max(map(_kept_blocks, self._parts)),
            typical_bytes=self.spacing_bytes,
            alignment=alignment,
            with_record_numbers=with_record_numbers,
        )

    def joined(self, others: Sequence[Self]) -> Self:
        for number, other in enumerate(others, 1):
            if other._form != self._form:
                raise Mismatch(
                    number,
                    "give all of them the same window=, stride=, documents= and as_dtype=, over "
                    "tokens of one dtype",
                )
        return type(self)([part for one in (self, *others) for part in one._parts], self._form)

    @property
    def has_rows(self) -> bool:
        return self._form.names is None

    @property
    def finishes(self) -> bool:
        return self._form.names is not None or self._form.kind == "documents"

    def finished(self, batch: Any, with_record_numbers: bool) -> Any:
        if not self.finishes:
            return batch
        if isinstance(batch, tuple):
            return self._delivered(batch[0]), batch[1]
        return self._delivered(batch)

    def _delivered(self, made: dict[str, Any]) -> Any:
        if self._form.names is None:
            return unchecked_ragged(*made["tokens"])
        values, _, _, _, (_, longest, _) = made["input_ids"]
        of_documents = (made["cu_seqlens"], made["cu_seqlens"], longest, longest)
        return {
            "input_ids": values[None],
            "position_ids": made["position_ids"][None],
            **dict(zip(_NAMES[self._form.names], of_documents, strict=True)),
        }


def _kept_blocks(part: Part) -> int:
    """Those that batches are read from, those that are read ahead, and those between."""
    most = _KEPT_BYTES // (_BYTES_PER_DOCUMENT * part.block_documents)
    return max(8, min(3 * part.mixed_blocks + 8, most))


def check_block_documents(count: int) -> int:
    if count > _C.MOST_DOCUMENTS_IN_BLOCK:
        raise ConfigError(
            f"block_records={count}: a block has at most {_C.MOST_DOCUMENTS_IN_BLOCK} documents: "
            "lower it"
        )
    return count
