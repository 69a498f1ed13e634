"""Documents of tokens as an iterable data set of batches."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from typing_extensions import Self, Unpack

from .. import _C
from ..config import check_bool, check_choice, check_int
from ..errors import ConfigError, DataError
from ..format.layout import make_layout
from ..format.paths import Paths
from ..format.tokens.corpus import Corpus
from ..format.tokens.megatron import Repair
from ..format.tokens.token_format import TokenFormat, TokenOptions, open_tokens
from ..format.tokens.token_records import (
    Kind,
    Names,
    Part,
    TokenForm,
    TokenRecords,
    check_block_documents,
)
from ..index.place import Where
from ..order.record_order import Stage, StreamOrder
from ..store.store import FileOrder
from ..store.stores import StoreSetting
from ..wording import count_of
from .options import DatasetOptions, Options, takes_options
from .stored_dataset import StoredDataset

DocumentMode = Literal["concat", "single", "padded"]

_KINDS: dict[DocumentMode, Kind] = {
    "concat": "windows",
    "single": "documents",
    "padded": "padded",
}
# Of documents that come together: as long as a device reads well, and few enough to be shuffled in
# microseconds.
_BLOCK_BYTES = 1 << 20
_MOST_BLOCK_DOCUMENTS = 4096
_MIXED_BLOCKS = 64


class TokenDataset(StoredDataset):
    """Batches of tokens of documents: windows over all of them, or one document a sample.

    ::

        dataset = s3io.TokenDataset("corpus/*.bin", window=2049, batch_size=8, shuffle=True)
        for batch in s3io.DataLoader(dataset, num_workers=2):
            inputs, targets = batch[:, :-1], batch[:, 1:]  # int64 [8, 2048]

    With ``documents="concat"`` the documents of an epoch follow each other in an order of its own,
    and are cut into windows, as for pre-training. A window may have the end of one document and the
    beginning of others. With ``shuffle=True`` blocks of neighbouring documents come in random
    order, the documents of a block as well, and the windows of 64 blocks that follow each other are
    mixed.
    No file is written for that: any step of any epoch is known at once.

    A batch is a tensor ``[B, window]``. Records are windows; ``subset`` and ``split`` take
    documents. Where documents are shuffled, window ``w`` of epoch ``e`` is record number
    ``e * num_records + w``. With ``"single"`` and ``"padded"`` records are documents.

    Args:
        paths: A file, a pattern, or a sequence of these: ``.bin`` or ``.idx`` files of Megatron, or
            their prefix; ``.bin`` files of llm.c and modded-nanogpt; raw ``.bin`` and
            ``.npy`` files without a header; ``.ds`` files of datatrove. Files that belong to
            others, such as ``.idx``, may match as well.
        format: Of all files; ``"auto"``: by their names and first bytes.
        window: Tokens of a window; for next-token prediction, context length + 1.
        stride: Tokens from one window's start to the next one's; None: ``window - 1``, so that
            every token but the first is a target once. What remains at the end of an epoch's
            documents and fills no window is left out; ``unused_tail_bytes`` counts it.
        documents: ``"concat"``: windows. ``"single"``: a batch is a ``Ragged`` of whole documents.
            ``"padded"``: a tensor [B, L] as long as the longest document, with zeros after the
            others.
        return_documents: A batch of windows is a dict over the flattened batch: ``input_ids`` and
            ``position_ids`` int64 [1, B * window], of which positions begin anew with each document
            and each window; ``cu_seq_lens_q`` and ``cu_seq_lens_k``, int32: where each begins, and
            the end; ``max_length_q`` and ``max_length_k``, ints. So attention is masked by
            document.
        names: Of the last four: as in Hugging Face's ``"transformers"``, or those of
            ``"flash_attn"``: ``cu_seqlens_q``, ``max_seqlen_q``, ...
        as_dtype: Of the tokens that are delivered; None: as they are stored.
        dtype: Of raw tokens, such as ``"uint16"``; of others it is known.
        eos: The token that ends each document, of raw files, which have no list of documents. None:
            each file is one, but for those with a ``NAME.csv.gz``.
        bos: The token that begins each document: 50256 in the files of llm.c and modded-nanogpt for
            GPT-2's tokens.
        index: Where it is kept what ``eos`` or ``bos`` was found to say, so that it is looked for
            once: True: beside the data, else in the user's cache folder. False: nowhere. Or the
            path of a file or folder; ``s3://bucket/folder``: in a bucket, for all machines.
        repair: ``"recompute"``: where the offsets in an ``.idx`` wrapped around, take its lengths.
        file_order: As for RecordDataset.
        store: As for RecordDataset.
        **options: As for RecordDataset, from ``batch_size`` to ``rank_timeout_s``. Of windows,
            ``shuffle="block"`` is the same with ``block_records`` documents in a block, up to
            65536, and the windows of ``window_blocks`` blocks mixed.

    Raises:
        NotFoundError, AccessError: A file is missing or may not be read.
        DataError: A file is damaged, or does not go with the one beside it.
        ConfigError: Arguments that cannot work, or have no effect.
    """

    @takes_options
    def __init__(
        self,
        paths: Paths,
        *,
        format: TokenFormat = "auto",
        window: int | None = None,
        stride: int | None = None,
        documents: DocumentMode = "concat",
        return_documents: bool = False,
        names: Names = "transformers",
        as_dtype: Any = torch.int64,
        dtype: Any = None,
        eos: int | None = None,
        bos: int | None = None,
        index: Where = True,
        repair: Repair | None = None,
        file_order: FileOrder = "name",
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> None:
        checked = DatasetOptions().changed(TokenDataset, options).reading(paths, store, index)
        check_choice("documents", documents, DocumentMode)
        check_bool("return_documents", return_documents)
        check_choice("names", names, Names)
        window, stride = _check_window(documents, window, stride)
        _check_delivery(documents, return_documents, names, checked.batch_size)
        told = TokenOptions(format, dtype, eos, repair, index, bos).checked()
        self._corpus = Corpus(open_tokens(paths, file_order, told))
        self._form = TokenForm(
            token=make_layout(self._corpus.dtype, (), as_dtype).fields[0],
            kind=_KINDS[documents],
            window=window,
            stride=stride,
            names=names if return_documents else None,
        )
        self._set_up_view(checked, ())

    @property
    def num_documents(self) -> int:
        """Of this data set, or view."""
        return self._documents_view[0][1] if self._documents_view else self._corpus.num_documents

    def _set_up_view(
        self, options: DatasetOptions, view: tuple[Stage, ...], is_told: bool = False
    ) -> None:
        self._documents_view = view
        if self._form.kind != "windows":
            records = TokenRecords([Part(self._corpus)], self._form)
            self._set_up(records, options, view, is_told=is_told)
            return
        part = self._part_of(options, view)
        records = TokenRecords([part], self._form)
        count = records.num_records
        if count == 0:
            raise DataError(
                f"{self._corpus.objects.path(0)}, ...: "
                f"{count_of(self.num_documents, 'document')} have "
                f"{count_of(part.blocks().num_tokens, 'token')}, too few for one window of "
                f"{self._form.window}: lower window="
            )
        order = StreamOrder(
            num_records=count,
            shuffle=options.shuffle,
            seed=options.seed,
            block_records=part.block_documents,
            window_blocks=part.mixed_blocks,
            view=view,
            block_windows=max(1, count * part.block_documents // self._corpus.num_documents),
            num_numbers=_C.NUMBERS_OF_TOKEN_PART,
        )
        self._set_up(records, options, order=order, is_told=is_told)
        self._stored_records = _C.NUMBERS_OF_TOKEN_PART  # a mixture numbers its parts by it

    def _part_of(self, options: DatasetOptions, view: tuple[Stage, ...]) -> Part:
        of_block = min(max(1, _BLOCK_BYTES // self._corpus.mean_bytes), _MOST_BLOCK_DOCUMENTS)
        return Part(
            self._corpus,
            view,
            block_documents=check_block_documents(options.block_records or of_block),
            is_shuffled=options.shuffle is not False,
            seed=options.seed,
            mixed_blocks=_MIXED_BLOCKS if options.shuffle is True else options.window_blocks,
        )

    # ---- Views, which are of documents.

    @property
    def _num_viewed(self) -> int:
        return self.num_documents

    def _view_of(self, stage: Stage) -> Self:
        return self._other(self._options, (stage, *self._documents_view))

    def _sibling(self, options: DatasetOptions, view: tuple[Stage, ...]) -> Self:
        return self._other(options, self._documents_view)

    def _other(self, options: DatasetOptions, view: tuple[Stage, ...]) -> Self:
        _check_delivery(
            next(mode for mode, kind in _KINDS.items() if kind == self._form.kind),
            self._form.names is not None,
            "transformers",
            options.batch_size,
        )
        dataset = type(self).__new__(type(self))
        dataset._corpus, dataset._form = self._corpus, self._form
        dataset._set_up_view(options, view, is_told=options.direct == self._options.direct)
        return dataset


def _check_window(
    documents: DocumentMode, window: int | None, stride: int | None
) -> tuple[int, int]:
    if documents != "concat":
        if window is not None or stride is not None:
            raise ConfigError(
                f"documents={documents!r} delivers whole documents: leave window= and stride= out"
            )
        return 1, 1
    if window is None:
        raise ConfigError(
            "window= is missing: how many tokens a window has, context length + 1, as in "
            "window=2049; or say documents='single' for one document a sample"
        )
    window = check_int("window", window, 1)
    return window, max(1, window - 1) if stride is None else check_int("stride", stride, 1)


def _check_delivery(
    documents: DocumentMode, return_documents: bool, names: Names, batch_size: int | None
) -> None:
    if return_documents and documents != "concat":
        raise ConfigError(
            f"return_documents=True is for windows, and documents={documents!r} has none: leave it "
            "out"
        )
    if names != get_args(Names)[0] and not return_documents:
        raise ConfigError(f"names={names!r} needs return_documents=True")
    if batch_size is None and (return_documents or documents == "padded"):
        what = "return_documents=True" if return_documents else "documents='padded'"
        raise ConfigError(f"{what} is about batches: give a batch_size")
