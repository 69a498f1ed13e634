"""A small data set, and states of it, for tests."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from order_check import Setting, numbers

SETTING = Setting(records=60, batch=4, seed=3, shuffle=True)


def state_after(path: Path, steps: int, setting: Setting = SETTING) -> dict[str, Any]:
    dataset = setting.dataset(path)
    numbers(itertools.islice(iter(dataset), steps))
    return dataset.state_dict()
