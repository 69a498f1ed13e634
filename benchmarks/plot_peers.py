"""Draws the results of bench_peers.py as bars: medians, and the range of the rounds.

python benchmarks/bench_peers.py --json results/peers.json
python benchmarks/plot_peers.py results/peers.json --table "shuffled, cold" docs/peers.svg
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

OURS, OTHERS = "#1a6fb5", "#b9bfc6"


def draw(axes: Axes, title: str, samples: dict[str, list[dict[str, float]]]) -> None:
    speeds = {name: [run["gb_per_s"] for run in runs] for name, runs in samples.items()}
    names = sorted(speeds, key=lambda name: statistics.median(speeds[name]))
    medians = [statistics.median(speeds[name]) for name in names]
    errors = [
        [middle - min(speeds[name]) for name, middle in zip(names, medians, strict=True)],
        [max(speeds[name]) - middle for name, middle in zip(names, medians, strict=True)],
    ]
    colors = [OURS if name.startswith("RecordDataset") else OTHERS for name in names]
    axes.barh(names, medians, xerr=errors, color=colors, ecolor="#555555", error_kw={"lw": 0.8})
    for row, middle in enumerate(medians):
        axes.annotate(
            f"{middle:.2f}",
            (0, row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color="white" if colors[row] == OURS else "black",
        )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("GB/s into the main process")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8, length=0)


def table_of(path: Path, part_of_title: str) -> dict[str, Any]:
    tables: list[dict[str, Any]] = json.loads(path.read_text())["bench_peers"]["tables"]
    for table in tables:
        if part_of_title in table["title"]:
            return table
    raise SystemExit(f"{path}: bench_peers has no table with {part_of_title!r} in its title")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="what bench_peers.py --json wrote")
    parser.add_argument("pictures", type=Path, nargs="+", help=".svg, .png, ...")
    parser.add_argument("--table", default="shuffled, cold", help="part of the table's title")
    args = parser.parse_args()
    table = table_of(args.results, args.table)
    # The same file for the same results; letters as letters.
    matplotlib.rcParams.update({"svg.hashsalt": "torch_s3io", "svg.fonttype": "none"})
    figure, _ = pyplot.subplots(
        1, len(table["samples"]), figsize=(4.2 * len(table["samples"]), 3.8), layout="constrained"
    )
    for axes, (shape, samples) in zip(figure.axes, table["samples"].items(), strict=True):
        draw(axes, f"{shape.replace(' x ', ', ')} a batch", samples)
    figure.suptitle(table["title"], fontsize=11)
    for path in args.pictures:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=110, metadata=metadata)


if __name__ == "__main__":
    main()
