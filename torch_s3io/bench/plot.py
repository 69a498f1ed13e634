"""Plots of a result: throughput over time, and how long batches were waited for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ..console import CommandError, optional_package
from ..wording import printable
from .result import counted, data_text, epoch_name, storage_text

_PERCENTILES = (0, 50, 90, 99, 99.9, 99.99)
_LEAST_WAIT_MS = 1e-4  # a logarithmic axis has no 0


def plot(result: dict[str, Any], folder: Path) -> list[Path]:
    """plot.png and plot.svg.

    Raises:
        CommandError: matplotlib is missing, or the files cannot be written.
    """
    matplotlib = optional_package("matplotlib", "matplotlib", "bench", "plotting")
    matplotlib.use("Agg")
    pyplot = optional_package("matplotlib.pyplot", "matplotlib", "bench", "plotting")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    _throughput(left, result["epochs"])
    _latencies(right, result["epochs"], matplotlib.ticker)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    _title(figure, result)
    paths = [folder / "plot.png", folder / "plot.svg"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names that the font lacks
            for path in paths:
                figure.savefig(path, dpi=150)
    except OSError as error:
        raise CommandError(f"{folder}: cannot be written to: {error.strerror}") from None
    finally:
        pyplot.close(figure)
    return paths


def _throughput(axes: Any, epochs: list[dict[str, Any]]) -> None:
    begin_s = 0.0
    for number, epoch in enumerate(epochs, 1):
        timeline = epoch["timeline"]
        edges = [begin_s + at for at in timeline["begin_s"]] + [begin_s + epoch["wall_s"]]
        style = {"color": _colour(number, epochs), "baseline": None}
        axes.stairs(timeline["gb_per_s"], edges, label=epoch_name(number, epochs), **style)
        begin_s = edges[-1]
    fastest = max(speed for epoch in epochs for speed in epoch["timeline"]["gb_per_s"])
    middle = sorted(epoch["gb_per_s"] for epoch in counted(epochs))[len(counted(epochs)) // 2]
    axes.axhline(middle, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="time, s", ylabel="GB/s", title="Throughput", ylim=(0, 1.08 * fastest))


def _latencies(axes: Any, epochs: list[dict[str, Any]], ticker: Any) -> None:
    """Percentiles, whose axis shows the rarest ones as wide as the common ones."""
    most = 1.0
    for number, epoch in enumerate(epochs, 1):
        curve = epoch["latency_curve"]
        rarity = [1 / (1 - percentile / 100) for percentile in curve["percentile"]]
        waits_ms = [max(wait * 1e3, _LEAST_WAIT_MS) for wait in curve["wait_s"]]
        style = {"color": _colour(number, epochs), "label": f"epoch {epoch_name(number, epochs)}"}
        axes.plot(rarity, waits_ms, marker=".", markersize=3, **style)
        most = max(most, rarity[-1])
    shown = [percent for percent in _PERCENTILES if 1 / (1 - percent / 100) < most / 1.5]
    shown.append(100 * (1 - 1 / most))
    axes.set(
        xlabel="share of batches, %", ylabel="waited for at most, ms", title="Waits of the loop",
        xscale="log", yscale="log",
    )  # fmt: skip
    axes.set_xticks([1 / (1 - percent / 100) for percent in shown], map("{:.4g}".format, shown))
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(loc="upper left", fontsize="small")


def _colour(number: int, epochs: list[dict[str, Any]]) -> Any:
    """Grey for a warm-up."""
    return "0.6" if number == 1 and len(epochs) > 1 else f"C{(number - 2) % 10}"


def _title(figure: Any, result: dict[str, Any]) -> None:
    """The name, and below it what was read, how, and where."""
    config, machine = result["config"], result["machine"]
    lines = [
        config["name"],
        data_text(config),
        storage_text(config, result["stats"]),
        f"{machine['processor']}, {machine['file_system']}, {machine['software']}",
    ]
    figure.suptitle("\n".join(map(printable, lines)), fontsize="small", parse_math=False)
