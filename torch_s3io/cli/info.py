"""``info``: layout and counts of a data set."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from ..console import say
from ..format.manifest import Manifest, read_manifest
from ..wording import size_text

_EPILOG = """\
examples:
  %(prog)s packed                     records, their fields, shards
  %(prog)s packed --json | python -m json.tool

exit status:
  0  shown     1  no data set that can be read: a line on stderr says why     2  wrong usage
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="layout and counts of a data set",
        description="Prints what a data set in a folder says of itself: how many records, their "
        "size and fields, its shards.\nIt reads the manifest alone; verify reads the records, too.",
        epilog=_EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER", help="what pack or a RecordWriter wrote")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    manifest = read_manifest(args.folder)
    say(*(_as_json(manifest) if args.json else _as_text(args.folder, manifest)))
    return 0


def _as_json(manifest: Manifest) -> list[str]:
    return json.dumps(json.loads(manifest.to_json()), indent=1).splitlines()


def _as_text(folder: str, manifest: Manifest) -> list[str]:
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
