"""``info``: layout and counts of a data set."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from ..console import say
from ..format.manifest import Manifest
from ..format.samples import SampleManifest, read_any_manifest
from ..wording import size_text

_EPILOG = """\
examples:
  %(prog)s packed                     records or samples, their fields, shards
  %(prog)s packed --json | python -m json.tool

exit status:
  0  shown     1  no data set that can be read: a line on stderr says why     2  wrong usage
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="layout and counts of a data set",
        description="Prints what a data set in a folder says of itself: how many records or "
        "samples, their size and fields, its shards.\nIt reads the manifest alone; verify reads "
        "everything.",
        epilog=_EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER", help="what pack or a writer of ours wrote")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    manifest = read_any_manifest(args.folder)
    if args.json:
        say(*json.dumps(json.loads(manifest.to_json()), indent=1).splitlines())
    elif isinstance(manifest, SampleManifest):
        say(*_samples_as_text(args.folder, manifest))
    else:
        say(*_records_as_text(args.folder, manifest))
    return 0


def _samples_as_text(folder: str, manifest: SampleManifest) -> list[str]:
    total = sum(shard.size_bytes for shard in manifest.shards)
    mean = manifest.data_bytes / manifest.num_samples
    index = max(manifest.layout.index_bytes(shard.length_bytes) for shard in manifest.shards)
    lines = [
        os.path.abspath(folder),
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
        lines.append(f"    {field.name}: {field.described}{order}{most}")
    return lines


def _records_as_text(folder: str, manifest: Manifest) -> list[str]:
    total = sum(shard.size_bytes for shard in manifest.shards)
    padding = manifest.stride_bytes - manifest.record_bytes
    lines = [
        os.path.abspath(folder),
        f"  records      {manifest.num_records}",
        f"  record       {manifest.record_bytes} bytes, and {padding} of padding",
        f"  shards       {len(manifest.shards)}, {size_text(total)}",
        "  fields",
    ]
    for field in manifest.fields:
        order = ", big-endian" if field.swap_bytes else ""
        where = f"bytes {field.offset} and on" if field.name else "the whole record"
        lines.append(
            f"    {field.name or '(record)'}: {field.stored} {list(field.shape)}{order}, {where}"
        )
    return lines
