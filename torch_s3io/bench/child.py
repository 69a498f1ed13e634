"""The measured process: ``python -m torch_s3io.bench.child REQUEST.json RESULT.json``.

It has nothing loaded but what reads and counts, and may have the allocation counter preloaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from .. import errors
from ..processes.lifetime import end_with
from ..store.s3_config import S3Config
from ..store.stores import reach_buckets
from . import data
from .config import BenchConfig
from .counters import counts_allocations
from .loop import Copies, measure_epoch, overhead_s_per_step
from .parse import from_mapping
from .progress import Progress
from .sources import Source

TRACE_NAME = "trace.json"


def run(config: BenchConfig, folder: Path, show: bool) -> dict[str, Any]:
    """All epochs, and what the loop itself costs."""
    torch.set_num_threads(1)
    paths = [] if config.data.is_in_bucket else data.paths_of(config.data)
    overhead_s = overhead_s_per_step()
    source = Source(config)
    epochs = []
    for number in range(config.epochs):
        if number == 0 or config.sets_cache_each_time:
            data.CACHE_STATES[config.page_cache](paths)
        with Progress(config, number, show) as progress:
            epochs.append(_epoch(source, config, number == 0, progress, folder))
    stats = source.stats()
    return {
        "overhead_s_per_step": overhead_s,
        "allocations_counted": counts_allocations(),
        "epochs": epochs,
        "stats": {key: value for key, value in stats.items() if _is_plain(value)},
    }


def _epoch(
    source: Source, config: BenchConfig, first: bool, progress: Progress, folder: Path
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "copies": lambda: Copies(
            copied=source.copied_bytes(), handed_over=source.handed_over_bytes()
        ),
        "workers": config.loader.workers,
        "copy_batches": config.loader.copy_batches,
        "watch": progress.update,
    }
    if not (config.profile and first):
        return measure_epoch(source, config.compute_s_per_step, **options)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        epoch = measure_epoch(source, config.compute_s_per_step, ranges=True, **options)
    profiler.export_chrome_trace(str(folder / TRACE_NAME))
    return epoch


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def main() -> int:
    request_path, result_path = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.loads(request_path.read_text())
    end_with(request["parent"])
    config = from_mapping(BenchConfig, request["config"])
    if request["store"] is not None:
        reach_buckets(S3Config(**request["store"]))
    try:
        result = run(config, result_path.parent, request["show"])
    except errors.Error as error:
        result = {"error": str(error), "class": type(error).__name__}
    result_path.write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
