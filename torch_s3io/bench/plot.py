"""Plots of a result: throughput over time, and how long batches were waited for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ..console import optional_package
from ..wording import printable


def plot(result: dict[str, Any], folder: Path) -> list[Path]:
    """plot.png and plot.svg."""
    matplotlib = optional_package("matplotlib", "matplotlib", "bench", "plotting")
    matplotlib.use("Agg")
    pyplot = optional_package("matplotlib.pyplot", "matplotlib", "bench", "plotting")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    begin_s = 0.0
    for number, epoch in enumerate(result["epochs"], 1):
        timeline, histogram = epoch["timeline"], epoch["latency_histogram"]
        edges = [begin_s + at for at in timeline["begin_s"]] + [begin_s + epoch["wall_s"]]
        left.stairs(timeline["gb_per_s"], edges, label=f"epoch {number}")
        waits, shares = _cumulative(histogram)
        right.plot(waits, shares, drawstyle="steps-post", label=f"epoch {number}")
        begin_s += epoch["wall_s"]
    left.set(xlabel="time, s", ylabel="GB/s", title="Throughput", ylim=(0, None))
    right.set(
        xlabel="time that the loop waited for a batch, ms", xscale="log", ylabel="share of batches",
        title="Batch latency", ylim=(0, 1.02),
    )  # fmt: skip
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(loc="lower right", fontsize="small")
    config = result["config"]
    title = printable(f"{config['name']}: {result['machine']['software']}")
    figure.suptitle(title, fontsize="medium", parse_math=False)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "plot.png", folder / "plot.svg"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name that the font cannot show
        for path in paths:
            figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths


def _cumulative(histogram: dict[str, list[float]]) -> tuple[list[float], list[float]]:
    """Times in ms and the share of batches that took at most so long."""
    total = sum(histogram["counts"])
    shares, seen = [0.0], 0.0
    for count in histogram["counts"]:
        seen += count
        shares.append(seen / total if total else 0.0)
    return [edge * 1e3 for edge in histogram["edges_s"]], shares
