"""``pack``: existing files, or the samples of an iterable, as shards with a manifest."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from .. import _C
from ..config import MIB, refuse_address
from ..console import progress_bar, say, show_progress
from ..errors import ConfigError
from ..store.store import FileOrder
from ..store.stores import scheme_of
from ..wording import count_of, size_text
from ..writing.document_packing import find_documents, pack_documents, size_of
from ..writing.pack_run import run_pack
from ..writing.packing import PackJob
from ..writing.record_folder import refuse_to_replace
from ..writing.sample_fields import options_of, parse_field
from ..writing.sample_packing import pack_samples
from ..writing.sample_source import find_source
from ..writing.sources import PackFormat, find_sources
from .parser import whole_number
from .store_option import add_store_option

_MOST_SHARD_MIB = 1 << 40
# Options that say nothing of samples.
_OF_FILES = (
    "format",
    "file_order",
    "dtype",
    "shape",
    "header_bytes",
    "window",
    "stride",
    "processes",
    "documents",
    "eos",
)
# Options that say nothing of documents of tokens.
_OF_RECORDS = ("shape", "header_bytes", "window", "stride", "shard_mib", "align", "processes")

_EPILOG = """\
examples:
  %(prog)s train.npy --output train                          records along the first axis
  %(prog)s spectra/ --format npy-files --output spectra      every .npy file is a record
  %(prog)s images/ --output images-packed                    every file of the folder is a record
  %(prog)s cifar-10-batches-bin/data_batch_*.bin -o cifar    label and image
  %(prog)s corpus.bin --format tokens --window 1025 -o corpus
  %(prog)s 'corpus/*.ds' --format tokens --documents -o all  all.bin and all.idx, as Megatron reads
  %(prog)s corpus.bin --format tokens --window 1025 -o s3://bucket/corpus    into a bucket
  %(prog)s raw/*.bin --format records --dtype float32 --shape 3,32,32 -o records
  %(prog)s --from mydata:samples -o photos                   samples of any length, from Python

For the last one, mydata.py in this folder has a function that gives dicts, or any iterable of them:

  def samples():
      for path in sorted(pathlib.Path("photos").glob("*.jpg")):
          yield {"image": path.read_bytes(), "label": 3, "box": numpy.zeros(4, "float32")}

The first sample says what the fields are: bytes, str, int (int64), float (float64), arrays and
tensors of their dtype, with axes of any length. --field says otherwise, once for each field:
--field label=uint8, --field 'box=float32[4]' (always 4 of them), --field 'mask=uint8[n,n]'.
Or samples.fields does, a dict as SampleWriter takes it.

Of a folder, what is hidden in it is left out, and so are data sets in it that were packed before.
A pack of files that was stopped goes on when the same command is given again: shards that are
finished are read and compared with their checksums, not written again. --from begins anew.

exit status:
  0  packed     1  failed: a line on stderr says why     2  wrong usage     130  Ctrl-C
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "pack",
        help="existing files, or samples from Python, as shards with a manifest",
        usage="%(prog)s SOURCE [SOURCE ...] -o FOLDER [options]\n"
        "       %(prog)s --from MODULE:NAME -o FOLDER [--field NAME=KIND ...] [options]",
        description="Packs .npy arrays, folders of equal-size files, CIFAR-10 binaries, token "
        "files or raw records into\na folder that RecordDataset(FOLDER) opens with no other "
        "argument; or samples of any length, for SampleDataset(FOLDER).",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="files, patterns, or folders of files")
    add("-o", "--output", required=True, metavar="FOLDER",
        help="made if it is not there; or s3://bucket/prefix")  # fmt: skip
    add("--from", dest="source", metavar="MODULE:NAME",
        help="an iterable of dicts, or a callable that gives one")  # fmt: skip
    add("--field", action="append", default=[], metavar="NAME=KIND",
        help="with --from: bytes, str, a dtype, or a dtype and its axes: uint8[n,n,3]")  # fmt: skip
    add("--overwrite", action="store_true",
        help="take the place of the data set in FOLDER, once the new one is whole")  # fmt: skip
    add("--format", choices=get_args(PackFormat), default="auto",
        help="what the sources are (default: by name and kind)")  # fmt: skip
    add("--file-order", choices=get_args(FileOrder), default="name",
        help="of the files of a folder or pattern; natural: m2 before m10")  # fmt: skip
    add("--dtype", metavar="D",
        help="of the records or tokens: a numpy dtype, or bfloat16 (tokens: uint16)")  # fmt: skip
    add("--shape", type=_shape, default=(), metavar="N,N", help="of one record")
    add("--header-bytes", type=whole_number(0), default=0, metavar="N",
        help="to skip in every file (records, files)")  # fmt: skip
    add("--window", type=whole_number(1), metavar="N", help="tokens of a record")
    add("--stride", type=whole_number(1), metavar="N",
        help="tokens from one window's start to the next one's (default: the window)")  # fmt: skip
    add("--documents", action="store_true",
        help="with --format tokens: write documents instead of windows, to FOLDER.bin and "
        "FOLDER.idx, in a bucket too; of all that TokenDataset reads")  # fmt: skip
    add("--eos", type=whole_number(0), metavar="N",
        help="with --documents: the token that ends each, where nothing else says it")  # fmt: skip
    add("--shard-mib", type=_mib, default=256, metavar="MIB",
        help="size of a shard, in MiB (default: %(default)s)")  # fmt: skip
    add("--align", type=_align, default="auto", metavar="auto|none|BYTES",
        help="where records begin: 'auto' pads to blocks where that costs under 3 %%")  # fmt: skip
    processes = min(4, _C.available_processors())
    add("--processes", type=whole_number(1), default=processes, metavar="N",
        help="that pack shards at the same time (default: %(default)s)")  # fmt: skip
    add_store_option(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    is_bucket = scheme_of(args.output) == "s3"
    if not is_bucket:
        refuse_address(args.output)
    if args.source is not None:
        return _run_samples(args)
    if not args.sources:
        args.parser.error("there is nothing to pack: name a SOURCE, or --from MODULE:NAME")
    if args.field:
        args.parser.error("--field is for samples, with --from: leave it out")
    if args.documents:
        return _run_documents(args)
    if args.eos is not None:
        args.parser.error("--eos is for --documents: leave it out")
    sources = find_sources(
        args.sources,
        args.output,
        format=args.format,
        file_order=args.file_order,
        dtype=args.dtype,
        shape=args.shape,
        header_bytes=args.header_bytes,
        window=args.window,
        stride=args.stride,
    )
    folder = args.output if is_bucket else os.path.abspath(args.output)
    job = PackJob.of(sources, folder, max(1, int(args.shard_mib * MIB)), args.align)
    start = time.monotonic()
    try:
        with _bar(job.total_bytes) as on_bytes:
            packed = run_pack(job, args.processes, on_bytes, overwrite=args.overwrite)
    except KeyboardInterrupt as interrupt:
        after = f"{args.output} has what it had before"
        if not is_bucket:
            after = "the same command goes on with what is finished"
        raise KeyboardInterrupt(str(interrupt) or after) from None
    elapsed_s = time.monotonic() - start
    manifest = packed.manifest
    padding = job.stride_bytes - manifest.record_bytes
    records = count_of(manifest.num_records, "record")
    say(
        f"{args.output}: {records} of {manifest.record_bytes} bytes"
        f"{f' (and {padding} of padding)' if padding else ''} in "
        f"{count_of(len(manifest.shards), 'shard')}, packed as {sources.format}"
    )
    if packed.replaced is not None:
        say(f"replaced: {packed.replaced.described}")
    resumed = f"; {count_of(packed.resumed_shards, 'shard')} there before"
    say(
        f"{size_text(job.total_bytes)} in {elapsed_s:.2f} s, "
        f"{size_text(job.total_bytes / max(elapsed_s, 1e-9))}/s"
        f"{resumed if packed.resumed_shards else ''}"
    )
    return 0


def _run_documents(args: argparse.Namespace) -> int:
    if args.format != "tokens":
        args.parser.error("--documents are of tokens: give --format tokens")
    for name in _OF_RECORDS:
        if getattr(args, name) != args.parser.get_default(name):
            args.parser.error(f"--{name.replace('_', '-')} is not for --documents: leave it out")
    try:
        dataset = find_documents(args.sources, args.file_order, args.dtype, args.eos)
    except ConfigError as error:
        raise _of_options(error) from None
    total_bytes = size_of(dataset)
    start = time.monotonic()
    try:
        with _bar(total_bytes) as on_bytes:
            whole = args.output if scheme_of(args.output) else os.path.abspath(args.output)
            prefix = whole.removesuffix(".bin").removesuffix(".idx")
            packed = pack_documents(dataset, prefix, overwrite=args.overwrite, on_bytes=on_bytes)
    except KeyboardInterrupt as interrupt:
        after = str(interrupt) or f"{args.output} has what it had before"
        raise KeyboardInterrupt(after) from None
    elapsed_s = time.monotonic() - start
    say(
        f"{packed.path}: {count_of(packed.num_documents, 'document')} of "
        f"{count_of(packed.num_tokens, 'token')}, and the .idx beside it"
    )
    size = packed.size_bytes
    say(f"{size_text(size)} in {elapsed_s:.2f} s, {size_text(size / max(elapsed_s, 1e-9))}/s")
    return 0


def _of_options(error: ConfigError) -> ConfigError:
    """What it says of Python's arguments, said of options."""
    text = str(error).split(", or say which of ")[0].replace(" and bos=", "")
    return ConfigError(re.sub(r"\b(dtype|eos)=(?:'(\w+)'|(\d+))?", _option, text))


def _option(match: re.Match[str]) -> str:
    value = match[2] or match[3]
    return f"--{match[1]} {value}" if value else f"--{match[1]}"


def _run_samples(args: argparse.Namespace) -> int:
    if args.sources:
        args.parser.error(f"--from takes no SOURCE: leave out {args.sources[0]}, or --from")
    for name in _OF_FILES:
        if getattr(args, name) != args.parser.get_default(name):
            args.parser.error(
                f"--{name.replace('_', '-')} is for files, without --from: leave it out"
            )
    folder = args.output if scheme_of(args.output) == "s3" else os.path.abspath(args.output)
    given = dict(map(parse_field, args.field))
    if not args.overwrite:
        refuse_to_replace(folder, "--overwrite")
    source = find_source(args.source)
    start = time.monotonic()
    try:
        with _sample_bar(source.count) as on_sample:
            packed = pack_samples(
                source,
                folder,
                given=given,
                shard_bytes=max(1, int(args.shard_mib * MIB)),
                align_samples=args.align,
                overwrite=args.overwrite,
                on_fields=_say_fields,
                on_sample=on_sample,
            )
    except KeyboardInterrupt as interrupt:
        after = str(interrupt) or f"{args.output} has what it had before"
        raise KeyboardInterrupt(after) from None
    elapsed_s = time.monotonic() - start
    say(f"{args.output}: {packed.manifest.described}, from {args.source}")
    if packed.replaced is not None:
        say(f"replaced: {packed.replaced.described}")
    size = packed.manifest.data_bytes
    say(f"{size_text(size)} in {elapsed_s:.2f} s, {size_text(size / max(elapsed_s, 1e-9))}/s")
    if packed.narrower:
        say(f"lengths that are the same in all samples: {packed.narrower} would fix them")
    return 0


def _say_fields(fields: Mapping[str, Any]) -> None:
    show_progress("")
    say(f"fields: {options_of(fields)}")


@contextlib.contextmanager
def _sample_bar(count: int | None) -> Iterator[Callable[[], object]]:
    """As ``_bar``, but of samples, whose bytes nobody knows before."""
    bar = progress_bar()
    if bar is None:
        yield lambda: None
        return
    with bar(total=count, desc="packing", unit=" samples") as shown:
        yield shown.update


@contextlib.contextmanager
def _bar(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, where tqdm is installed."""
    bar = progress_bar()
    if bar is None:
        yield lambda count: None
        return
    with bar(total=total_bytes, desc="packing", unit="B", unit_scale=True) as shown:
        yield lambda count: None if count == 0 else shown.update(count)


def _mib(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size <= _MOST_SHARD_MIB:
        raise argparse.ArgumentTypeError(f"{text} is no number of MiB above 0, such as 256")
    return size


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(extent) for extent in text.replace("x", ",").split(",") if extent)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a shape such as 3,32,32") from None


def _align(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return text if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not 'auto', 'none' or bytes such as 4096"
        ) from None
