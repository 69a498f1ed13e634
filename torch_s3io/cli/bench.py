"""``bench``: epochs of an emulated training loop, from a configuration."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shlex
from pathlib import Path
from typing import Any

from ..bench import seed_metrics
from ..bench.compare import compare
from ..bench.data import folder_made, names_of
from ..bench.load import explained_text, load, shipped_names
from ..bench.parse import to_mapping
from ..bench.plot import plot
from ..bench.result import as_markdown, read, save, write_text
from ..bench.runner import make_data, run
from ..console import CommandError, note, say, say_text, show_step
from ..errors import ConfigError, NotFoundError
from ..store.s3_config import S3Config
from ..wording import size_text
from .parser import Parser, whole_number
from .store_option import add_store_option, reach, store_words

_PROGRAM = "python -m torch_s3io"
_STATUSES = """\
exit status:
  0  measured     1  failed: a line on stderr says why     2  wrong usage     130  Ctrl-C
"""

_DESCRIPTION = """\
Runs epochs of an emulated training loop and says per epoch: GB/s, samples/s, accelerator
utilisation (AU, as MLPerf Storage defines it), waits for batches, processor time, page faults,
allocator calls, copied bytes, memory. The first epoch is a warm-up.

CONFIG is a YAML file, or the name of a configuration that comes with the package. Keys that a
file leaves out have defaults; --set changes them. The files that are read are made where they are
absent, in data.folder (data/bench in this folder), and stay there for the next run.
"""

_EPILOG = f"""\
other commands (each has --help):
  %(prog)s compare A B            two results as ratios
  %(prog)s seed-metrics [CONFIG]  the same work without a buffer pool and with it

examples:
  %(prog)s --list
  %(prog)s resnet50 --set data.folder=/mnt/nvme/bench
  %(prog)s resnet50 --set loader.workers=2 --set epochs=6 --output results/two-workers
  %(prog)s compare results/resnet50 results/two-workers
  %(prog)s --show resnet50 > mine.yaml   then change it, and: %(prog)s mine.yaml
  %(prog)s bucket.yaml --store endpoint=http://localhost:9000    where storage.type is s3

keys that are changed most (all of them: docs/configuration.md, Benchmarks):
  data.folder, data.files, data.records_per_file, data.record_bytes (4 KiB, 1.5 MB, ...)
  storage.direct_io   require | auto | off        storage.depth, storage.engine, storage.pool
  loader.batch_size, loader.workers               loader.shuffle   true | false | block
  page_cache          cold | warm | leave         epochs, compute_s_per_step

{_STATUSES}"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="epochs of an emulated training loop, from a configuration",
        usage="%(prog)s [run] CONFIG [--set KEY=VALUE ...] [--store ...] [--output DIR]\n"
        "       %(prog)s --list | --show NAME\n"
        "       %(prog)s compare A B | seed-metrics [CONFIG ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_run(parser)
    parser.commands = {
        "run": parser,  # as without it
        "compare": _compare_parser(f"{parser.prog} compare"),
        "seed-metrics": _seed_metrics_parser(f"{parser.prog} seed-metrics"),
    }


def _add_run(parser: Parser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file, or a name")
    _add_settings(parser)
    add_store_option(parser, dest="bucket_store")
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder for result.json, table.md, plot.png and plot.svg (default: results/NAME)",
    )  # fmt: skip
    parser.add_argument("--no-plot", action="store_true", help="do without matplotlib")
    parser.add_argument("--list", action="store_true", help="the configurations of the package")
    parser.add_argument("--show", metavar="NAME", help="print one of them")
    parser.set_defaults(run=_run, parser=parser)


def _add_settings(parser: Parser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", dest="settings",
        help="change a key of the configuration, as in loader.workers=2; may be repeated",
    )  # fmt: skip


def _setting(text: str) -> str:
    if not text.partition("=")[0].strip() or "=" not in text:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE, as in loader.workers=2")
    return text


def _compare_parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Medians of two results with their spread, without the first epochs; the "
        "second one as a ratio of the first;\nthe settings that differ.",
        epilog=f"example:\n  %(prog)s results/resnet50 results/two-workers\n\n{_STATUSES}",
    )
    parser.add_argument("first", type=Path, metavar="A", help="a result.json, or the folder of one")
    parser.add_argument("second", type=Path, metavar="B", help="another one")
    parser.set_defaults(run=_compare)
    return parser


def _seed_metrics_parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Runs the same configuration without a buffer pool (an allocation for every "
        "read, a copy of every\nbatch) and with it, in turns, and fio on the same files; says what "
        "the pool changes: throughput,\nprocessor time, minor faults, allocator calls, and the gap "
        "to fio.",
        epilog=f"example:\n  %(prog)s files-8mib --rounds 5\n\n{_STATUSES}",
    )
    parser.add_argument(
        "config", nargs="*", default=["files-8mib", "resnet50"], metavar="CONFIG",
        help="YAML files, or names (default: files-8mib and resnet50)",
    )  # fmt: skip
    _add_settings(parser)
    parser.add_argument(
        "--rounds", type=whole_number(1), default=5, metavar="N",
        help="how often each is measured (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every sample to PATH")
    parser.set_defaults(run=_seed_metrics, parser=parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.list:
        for name in shipped_names():
            say(f"{name:<20} {load(name, []).description}")
        return 0
    if args.show is not None:
        say_text(explained_text(args.show))
        return 0
    if args.config is None:
        args.parser.error("CONFIG is missing: a YAML file, or a name that --list shows")
    config = _load(args, args.config)
    store: S3Config | None = args.bucket_store
    reach(store, [config.data.folder])
    command = _command(args.config, args.settings, *store_words(store))
    with folder_made(args.output or Path("results") / config.name, "--output") as folder:
        make_data(config)
        result = run(config, store, trace=folder / "trace.json")
        written = save(result, folder, command)
        if config.profile:
            written.append(folder / "trace.json")
        if not args.no_plot:
            try:
                written += plot(result, folder)
            except CommandError as error:
                note(f"no plot: {error}; --no-plot does without")
    say_text(f"{as_markdown(result, command)}\n")
    say(f"written: {', '.join(map(str, written))}")
    size = size_text(config.data.total_bytes)
    place = os.path.dirname(names_of(config.data)[0])
    say(f"data: {size} in {place}, which the next run reads again")
    return 0


def _load(args: argparse.Namespace, name: str) -> Any:
    try:
        return load(name, args.settings)
    except NotFoundError as error:
        commands = getattr(args.parser, "commands", [])
        near = difflib.get_close_matches(name, commands, n=1)
        raise NotFoundError(f"{error}; or the command {near[0]}?" if near else str(error)) from None


def _compare(args: argparse.Namespace) -> int:
    names = (args.first.stem, args.second.stem)
    if names[0] == names[1]:
        names = (str(args.first), str(args.second))
    say_text(f"{compare(read(args.first), read(args.second), names)}\n")
    return 0


def _seed_metrics(args: argparse.Namespace) -> int:
    if args.json is not None and args.json.is_dir():
        args.parser.error(f"--json: {args.json} is a folder: name a file in it")
    configs = [(name, _load(args, name)) for name in args.config]
    with folder_made(args.json.parent if args.json else Path(), "--json"):
        times = seed_metrics.take_give(args.rounds)
        everything: dict[str, Any] = {"take_give_ns": times}
        for name, config in configs:
            if config.data.is_in_bucket:
                raise ConfigError(f"{name}: storage.type s3 has no comparison with fio: run it")
            make_data(config)
            measured = seed_metrics.measure(config, args.rounds, show_step)
            command = _command("seed-metrics", args.settings, name, "--rounds", str(args.rounds))
            say_text(f"{seed_metrics.as_markdown(measured, config, command)}\n")
            everything[config.name] = {"config": to_mapping(config), **measured}
        say_text(f"{seed_metrics.take_give_markdown(times)}\n")
        if args.json is not None:
            write_text(args.json, json.dumps(everything, indent=1) + "\n")
    return 0


def _command(what: str, settings: list[str], *more: str) -> str:
    parts = [part for setting in settings for part in ("--set", setting)]
    return shlex.join([*_PROGRAM.split(), "bench", what, *more, *parts])
