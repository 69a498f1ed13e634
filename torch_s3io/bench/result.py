"""Results: metrics with their units, a Markdown table, the files that are written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import CommandError
from ..errors import DataError, NotFoundError
from ..wording import count_of, printable, size_text

_LARGEST = 1e100
_MOST_LEVELS = 8

Epoch = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of an epoch: its key in the JSON, a heading, a factor for display, a format."""

    key: str
    title: str
    factor: float = 1.0
    form: str = ",.2f"

    def of(self, epoch: Epoch) -> float | None:
        value = epoch.get(self.key)
        return None if value is None else float(value) * self.factor

    def show(self, value: float | None) -> str:
        return "" if value is None else format(value, self.form)


METRICS = (
    Metric(key="gb_per_s", title="GB/s"),
    Metric(key="samples_per_s", title="samples/s", form=",.1f"),
    Metric(key="au_percent", title="AU %", form=".1f"),
    Metric(key="latency_p50_s", title="p50 ms", factor=1e3, form=",.3f"),
    Metric(key="latency_p99_s", title="p99 ms", factor=1e3, form=",.3f"),
    Metric(key="latency_p999_s", title="p99.9 ms", factor=1e3, form=",.3f"),
    Metric(key="cpu_percent", title="CPU %", form=".1f"),
    Metric(key="cpu_s_per_gb", title="CPU s/GB", form=".3f"),
    Metric(key="minor_faults", title="minor faults", form=",.0f"),
    Metric(key="allocator_calls", title="allocator calls", form=",.0f"),
    Metric(key="allocated_bytes", title="allocated MB", factor=1e-6, form=",.1f"),
    Metric(key="copied_bytes", title="copied MB", factor=1e-6, form=",.1f"),
    Metric(key="peak_rss_bytes", title="peak RSS MiB", factor=1 / (1 << 20), form=",.0f"),
)


def spread(values: list[float], show: Callable[[float], str], unit: str = "") -> str:
    """Median, smallest and largest."""
    median = show(statistics.median(values)) + unit
    low, high = show(min(values)), show(max(values))
    return f"{median} ({low}{' to ' if low[0] in '+-' else '-'}{high})"


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


def counted(epochs: list[Epoch]) -> list[Epoch]:
    """The epochs that count: all but the first, which makes buffers and starts workers, unless it
    is the only one."""
    return epochs[1:] or epochs


def epoch_name(number: int, epochs: list[Epoch]) -> str:
    """How an epoch is called: its number, from 1 on."""
    return f"{number} (warm-up)" if number == 1 and len(epochs) > 1 else str(number)


def as_markdown(result: dict[str, Any], command: str) -> str:
    """What was run and where, a row an epoch, and the medians of those that count."""
    config, epochs = result["config"], result["epochs"]
    shown = [metric for metric in METRICS if any(metric.of(epoch) is not None for epoch in epochs)]
    rows = [
        [epoch_name(number, epochs), *(metric.show(metric.of(epoch)) for metric in shown)]
        for number, epoch in enumerate(epochs, 1)
    ]
    if len(epochs) > 2:
        medians = [metric.show(_median(metric, counted(epochs))) for metric in shown]
        rows.append([f"median of 2-{len(epochs)}", *medians])
    lines = [
        f"### {config['name']}",
        "",
        *([config["description"], ""] if config["description"] else []),
        f"`{command}`",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in result["machine"].items()),
        f"- data: {data_text(config)}",
        f"- read: {storage_text(config, result['stats'])}",
        f"- the tool itself: {overhead_text(result)}",
        *(f"- {note}" for note in result["notes"]),
        "",
    ]
    table = markdown_table(["epoch", *(metric.title for metric in shown)], rows)
    return as_lines(lines) + table + "\n"


def as_lines(lines: list[str]) -> str:
    """Each of them on a line of its own, whatever names it holds."""
    return "".join(f"{printable(line)}\n" for line in lines)


def _median(metric: Metric, epochs: list[Epoch]) -> float | None:
    values = [value for epoch in epochs if (value := metric.of(epoch)) is not None]
    return statistics.median(values) if values else None


def data_text(config: dict[str, Any]) -> str:
    data, loader = config["data"], config["loader"]
    return (
        f"{data['files']:,} files of {data['records_per_file']:,} records of "
        f"{data['record_bytes']:,} bytes, {loader['batch_size']:,} a batch, page cache "
        f"{config['page_cache']}, {_order_text(loader)}"
    )


def _order_text(loader: dict[str, Any]) -> str:
    """The order of the records, with what was chosen of it."""
    text = f"shuffle {str(loader['shuffle']).lower()}"
    if loader.get("block_records"):
        text += f", {loader['block_records']:,} records a block"
    if loader.get("window_blocks", 1) > 1:
        text += f", {loader['window_blocks']:,} blocks a window"
    return text


def storage_text(config: dict[str, Any], stats: dict[str, Any]) -> str:
    storage, loader = config["storage"], config["loader"]
    workers, compute_s = loader["workers"], config["compute_s_per_step"]
    return (
        f"{loader['reader']}, direct_io {storage['direct_io']}, engine "
        f"{stats.get('engine', storage['engine'])}, "
        f"{count_of(workers, 'worker') if workers else 'no workers'}, "
        f"{f'{compute_s:g} s computing a step' if compute_s else 'no computing'}"
        f"{_verified_text(stats)}"
    )


def _verified_text(stats: dict[str, Any]) -> str:
    """Of what came from a bucket."""
    verified, others = stats.get("verified_bytes", 0), stats.get("unverified_bytes", 0)
    if not verified + others:
        return ""
    return f", {size_text(verified)} compared with checksums, {size_text(others)} without any"


def overhead_text(result: dict[str, Any]) -> str:
    """What the loop costs by itself, and what share of the epochs that is."""
    each = result["overhead_s_per_step"]
    steps = sum(epoch["steps"] for epoch in result["epochs"])
    wall = sum(epoch["wall_s"] for epoch in result["epochs"])
    return (
        f"{each * 1e6:.2f} us a batch with nothing to read, {each * steps / wall:.2%} of the time"
    )


def save(result: dict[str, Any], folder: Path, command: str) -> list[Path]:
    """result.json and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, table_path = folder / "result.json", folder / "table.md"
    write_text(json_path, json.dumps({"command": command, **result}, indent=1) + "\n")
    write_text(table_path, as_markdown(result, command))
    return [json_path, table_path]


def write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from None


def read(path: Path) -> dict[str, Any]:
    """A result.json, or the one in a folder.

    Raises:
        NotFoundError, DataError: It is not there, or is no result.
    """
    file = path / "result.json" if path.is_dir() else path
    try:
        result: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{file}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: is no result of a benchmark: {error}") from None
    if not isinstance(result, dict):
        raise DataError(f"{file}: is no result of a benchmark: it has no config")
    config = result.get("config")
    if not isinstance(config, dict) or not _is_flat(config, _MOST_LEVELS):
        raise DataError(f"{file}: is no result of a benchmark: it has no config")
    if not _is_flat(result.get("store"), _MOST_LEVELS):
        raise DataError(f"{file}: is no result of a benchmark: its store is no list of settings")
    epochs = result.get("epochs")
    if not isinstance(epochs, list) or not epochs or not all(map(_is_epoch, epochs)):
        raise DataError(f"{file}: is no result of a benchmark: it has no epochs with figures")
    return result


def _is_flat(value: Any, levels: int) -> bool:
    """Whether mappings and lists do not hold one another more than so often."""
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(one, levels - 1) for one in inner)


def _is_epoch(epoch: Any) -> bool:
    return isinstance(epoch, dict) and all(_is_figure(epoch.get(metric.key)) for metric in METRICS)


def _is_figure(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= _LARGEST)
