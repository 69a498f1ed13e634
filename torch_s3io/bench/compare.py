"""Two results as ratios."""

from __future__ import annotations

import statistics
from typing import Any

from ..wording import one_line, short
from .result import METRICS, Metric, as_lines, counted, markdown_table, spread


def compare(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]) -> str:
    """A Markdown table: of every metric both medians with spread, and second / first. The first
    epochs are left out.

    The ratio is that of the medians; its spread is that of all pairs of epochs, since the two were
    not run in turns.
    """
    rows = []
    for metric in METRICS:
        ours, theirs = _values(metric, first), _values(metric, second)
        if ours and theirs:
            show = metric.show
            rows.append(
                [metric.title, spread(ours, show), spread(theirs, show), _ratio(ours, theirs)]
            )
    table = markdown_table(["", *names, f"{names[1]} / {names[0]}"], rows)
    has_stores = "store" in first and "store" in second  # older results have none
    different = differences(_settings(first, has_stores), _settings(second, has_stores))
    notes = [f"- {one_line(key)}: {short(one)}, {short(other)}" for key, one, other in different]
    return f"{table}\n\nDifferent settings:\n\n{as_lines(notes or ['- none'])}"


def _settings(result: dict[str, Any], with_store: bool) -> dict[str, Any]:
    """Those of the configuration, and how a bucket was reached."""
    return {**result["config"], **({"store": result["store"]} if with_store else {})}


def _values(metric: Metric, result: dict[str, Any]) -> list[float]:
    epochs = counted(result["epochs"])
    return [value for epoch in epochs if (value := metric.of(epoch)) is not None]


def _ratio(first: list[float], second: list[float]) -> str:
    if 0 in first:
        return ""
    ratio = statistics.median(second) / statistics.median(first)
    least, most = min(second) / max(first), max(second) / min(first)  # none is below 0
    return f"{ratio:.2f}x ({least:.2f}-{most:.2f})"


def differences(first: Any, second: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Settings that differ: key, value here, value there."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(key for key in second if key not in first)]
        return [
            found
            for key in keys
            for found in differences(
                first.get(key), second.get(key), f"{where}.{key}" if where else key
            )
        ]
    return [] if first == second else [(where, first, second)]
