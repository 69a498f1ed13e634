"""``info``: layout and counts of a data set."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from ..console import say
from ..errors import ConfigError, NotFoundError
from ..format.manifest import Manifest
from ..format.samples import SampleManifest, read_any_manifest
from ..format.tokens.document_table import TokenFile
from ..format.tokens.token_format import TokenOptions, open_tokens
from ..store.key_patterns import is_pattern
from ..store.stores import scheme_of, store_of
from ..wording import printable, size_text
from .index_facts import index_as_json, index_as_text, indexes_at
from .store_option import add_store_option

_EPILOG = """\
examples:
  %(prog)s packed                     records or samples, their fields, shards
  %(prog)s packed --json | python -m json.tool
  %(prog)s shards                     the indexes of the data in a folder
  %(prog)s corpus.bin                 tokens: of Megatron, llm.c or datatrove, or their documents
  %(prog)s s3://public/packed --store anonymous=true
  %(prog)s 's3://bucket/shards/*.tar'  the indexes that lie beside the shards

exit status:
  0  shown     1  no data set that can be read: a line on stderr says why     2  wrong usage
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="layout and counts of a data set",
        description="Prints what a data set in a folder says of itself: how many records or "
        "samples, their size and fields, its shards.\nIt reads the manifest alone; verify reads "
        "everything. Of a file of tokens it prints how many tokens and documents there are;\n"
        "of other data the indexes that there are, and whether they hold.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="what pack or a writer of ours wrote; a file of tokens; a folder of data with an "
        "index, or that index",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    add_store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with indexes_at(args.folder) as indexes:
        if indexes and args.json:
            say(*json.dumps([index_as_json(one) for one in indexes], indent=1).splitlines())
        elif indexes:
            say(*(line for one in indexes for line in index_as_text(one)))
        if indexes:
            return 0
    if _is_file(args.folder):
        try:
            [file] = open_tokens(args.folder, "name", TokenOptions())
        except ConfigError:
            raise ConfigError(
                f"{printable(args.folder)}: info does not know what is in it: it knows folders "
                "that pack or a writer of ours wrote, files of tokens of Megatron, llm.c and "
                "datatrove, and indexes"
            ) from None
        facts = _facts_of(file)
        say(*json.dumps(facts, indent=1).splitlines() if args.json else _tokens_as_text(facts))
        return 0
    if is_pattern(args.folder) and (scheme_of(args.folder) or not os.path.exists(args.folder)):
        raise NotFoundError(
            f"{printable(args.folder)}: there is no index of these data: `python -m torch_s3io "
            "index` makes one, and so does the first program that reads them, where they need one"
        )
    manifest = read_any_manifest(args.folder)
    if args.json:
        say(*json.dumps(json.loads(manifest.to_json()), indent=1).splitlines())
    elif isinstance(manifest, SampleManifest):
        say(*_samples_as_text(args.folder, manifest))
    else:
        say(*_records_as_text(args.folder, manifest))
    return 0


def _is_file(path: str) -> bool:
    """Whether it is a file, or the prefix of Megatron's two."""
    if scheme_of(path):
        store = store_of(path)
        return not store.is_folder(path) and (store.has(path) or store.has(f"{path}.idx"))
    return os.path.isfile(path) or (not os.path.exists(path) and os.path.isfile(f"{path}.idx"))


def _facts_of(file: TokenFile) -> dict[str, Any]:
    return {
        "path": file.shard.path,
        "size_bytes": file.shard.size_bytes,
        "dtype": file.dtype.name,
        "num_documents": file.shard.num_records,
        "num_tokens": file.num_tokens,
        "longest": file.longest,
    }


def _tokens_as_text(facts: dict[str, Any]) -> list[str]:
    mean = facts["num_tokens"] / max(1, facts["num_documents"])
    return [
        facts["path"],
        f"  tokens       {facts['num_tokens']} of {facts['dtype']}, "
        f"{size_text(facts['size_bytes'])}",
        f"  documents    {facts['num_documents']}",
        f"  document     {mean:.0f} tokens on average, at most {facts['longest']}",
    ]


def _samples_as_text(folder: str, manifest: SampleManifest) -> list[str]:
    total = sum(shard.size_bytes for shard in manifest.shards)
    mean = manifest.data_bytes / manifest.num_samples
    index = max(manifest.layout.index_bytes(shard.length_bytes) for shard in manifest.shards)
    lines = [
        store_of(folder).absolute(folder),
        f"  samples      {manifest.num_samples}",
        f"  sample       {size_text(mean)} on average, at most "
        f"{size_text(manifest.largest_sample_bytes)}; begins at a multiple of "
        f"{manifest.alignment} bytes",
        f"  index        {index} bytes a sample",
        f"  shards       {len(manifest.shards)}, {size_text(total)}",
        "  fields",
    ]
    lengths = iter(manifest.largest_lengths)
    for field in manifest.layout.fields:
        order = ", big-endian" if field.swap_bytes else ""
        most = f", n at most {', '.join(map(str, next(lengths)))}" if field.is_ragged else ""
        lines.append(f"    {printable(field.name)}: {field.described}{order}{most}")
    return lines


def _records_as_text(folder: str, manifest: Manifest) -> list[str]:
    total = sum(shard.size_bytes for shard in manifest.shards)
    padding = manifest.stride_bytes - manifest.record_bytes
    lines = [
        store_of(folder).absolute(folder),
        f"  records      {manifest.num_records}",
        f"  record       {manifest.record_bytes} bytes, and {padding} of padding",
        f"  shards       {len(manifest.shards)}, {size_text(total)}",
        "  fields",
    ]
    for field in manifest.fields:
        order = ", big-endian" if field.swap_bytes else ""
        where = f"bytes {field.offset} and on" if field.name else "the whole record"
        name = printable(field.name) or "(record)"
        lines.append(f"    {name}: {field.stored} {list(field.shape)}{order}, {where}")
    return lines
