"""``bench``: epochs of an emulated training loop, from a configuration."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any

from ..bench import seed_metrics
from ..bench.compare import compare
from ..bench.load import load, shipped_names, shipped_text
from ..bench.parse import to_mapping
from ..bench.plot import plot
from ..bench.result import as_markdown, read, save, write_text
from ..bench.runner import make_data, run
from ..console import CommandError, note, say, say_text, show_step

_PROGRAM = "python -m torch_s3io"
_COMMANDS = ("run", "compare", "seed-metrics", "-h", "--help")

_DESCRIPTION = """\
Runs epochs of an emulated training loop over files that it makes where they are absent, and says
per epoch: GB/s, samples/s, accelerator utilisation (AU, as MLPerf Storage defines it), latencies of
batches, processor time, page faults, allocator calls, copied bytes, memory.

A configuration is a YAML file, or the name of one that comes with the package.
"""

_EPILOG = f"""\
examples:
  {_PROGRAM} bench --list
  {_PROGRAM} bench resnet50
  {_PROGRAM} bench resnet50 --set loader.workers=2 --set data.folder=/mnt/nvme/bench
  {_PROGRAM} bench --show resnet50 > mine.yaml && {_PROGRAM} bench mine.yaml
  {_PROGRAM} bench compare results/resnet50 results/mine
  {_PROGRAM} bench seed-metrics

Every key of a configuration: docs/configuration.md.
"""


def add_parser(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "bench",
        help="epochs of an emulated training loop, from a configuration",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    usage = "[run] CONFIG | compare A B | seed-metrics"
    commands = parser.add_subparsers(metavar=usage, required=True)
    _add_run(commands)
    _add_compare(commands)
    _add_seed_metrics(commands)
    _run_by_default(parser)


def _add(subparsers: Any, name: str, **options: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )
    return parser


def _run_by_default(parser: argparse.ArgumentParser) -> None:
    """``bench resnet50`` is short for ``bench run resnet50``."""
    parse = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None) -> Any:
        if args is not None and (not args or args[0] not in _COMMANDS):
            args = ["run", *args]
        return parse(args, namespace)

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def _add_run(commands: Any) -> None:
    parser = _add(
        commands, "run", help="run a configuration", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file, or a name")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="change a key of the configuration, as in storage.depth=64; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder for result.json, table.md, plot.png and plot.svg (default: results/NAME)",
    )  # fmt: skip
    parser.add_argument("--no-plot", action="store_true", help="do without matplotlib")
    parser.add_argument("--list", action="store_true", help="the configurations of the package")
    parser.add_argument("--show", metavar="NAME", help="print one of them")
    parser.set_defaults(run=_run, parser=parser)


def _add_compare(commands: Any) -> None:
    parser = _add(
        commands,
        "compare",
        help="two results as ratios",
        description="Medians of two results with their spread, and the second as a ratio of the "
        "first.",
        epilog=f"example:\n  {_PROGRAM} bench compare results/resnet50 results/resnet50-2-workers",
    )
    for name in ("first", "second"):
        parser.add_argument(name, type=Path, help="a result.json, or the folder of one")
    parser.set_defaults(run=_compare)


def _add_seed_metrics(commands: Any) -> None:
    parser = _add(
        commands,
        "seed-metrics",
        help="the same work without a buffer pool and with it",
        description="Runs the same configuration without a buffer pool (an allocation for every "
        "read, a copy of every\nbatch) and with it, in turns, and fio on the same files; says what "
        "the pool changes: throughput,\nprocessor time, minor faults, allocator calls, and the gap "
        "to fio.",
        epilog=f"example:\n  {_PROGRAM} bench seed-metrics files-8mib --rounds 5",
    )
    parser.add_argument(
        "config", nargs="*", default=["files-8mib", "resnet50"], metavar="CONFIG",
        help="YAML files, or names (default: files-8mib and resnet50)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="change a key of the configurations; may be repeated",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every sample to PATH")
    parser.set_defaults(run=_seed_metrics, parser=parser)


def _run(args: argparse.Namespace) -> int:
    if args.list:
        for name in shipped_names():
            say(f"{name:<20} {load(name, []).description}")
        return 0
    if args.show is not None:
        say_text(shipped_text(args.show))
        return 0
    if args.config is None:
        args.parser.error("CONFIG is missing: a YAML file, or a name that bench --list shows")
    config = load(args.config, args.settings)
    folder = _output_folder(args.output or Path("results") / config.name)
    make_data(config)
    result = run(config, trace=folder / "trace.json")
    command = _command(args.config, args.settings)
    written = save(result, folder, command)
    if config.profile:
        written.append(folder / "trace.json")
    if not args.no_plot:
        try:
            written += plot(result, folder)
        except CommandError as error:
            note(f"no plot: {error}")
    say_text(f"{as_markdown(result, command)}\n")
    say(f"written: {', '.join(map(str, written))}")
    return 0


def _output_folder(folder: Path) -> Path:
    """Made before anything is measured, so that no result is lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--output: cannot make {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise CommandError(f"--output: {folder} may not be written to")
    return folder


def _compare(args: argparse.Namespace) -> int:
    names = (args.first.stem, args.second.stem)
    if names[0] == names[1]:
        names = (str(args.first), str(args.second))
    say_text(f"{compare(read(args.first), read(args.second), names)}\n")
    return 0


def _seed_metrics(args: argparse.Namespace) -> int:
    if args.rounds < 1:
        args.parser.error("--rounds must be at least 1")
    if args.json is not None:
        _output_folder(args.json.parent)
    times = seed_metrics.take_give(args.rounds)
    everything: dict[str, Any] = {"take_give_ns": times}
    for name in args.config:
        config = load(name, args.settings)
        make_data(config)
        measured = seed_metrics.measure(config, args.rounds, show_step)
        rounds = ["--rounds", str(args.rounds)]
        command = _command("seed-metrics", args.settings, name, *rounds)
        say_text(f"{seed_metrics.as_markdown(measured, config, command)}\n")
        everything[config.name] = {"config": to_mapping(config), **measured}
    say_text(f"{seed_metrics.take_give_markdown(times)}\n")
    if args.json is not None:
        write_text(args.json, json.dumps(everything, indent=1) + "\n")
    return 0


def _command(what: str, settings: list[str], *more: str) -> str:
    parts = [part for setting in settings for part in ("--set", setting)]
    return shlex.join([*_PROGRAM.split(), "bench", what, *more, *parts])
