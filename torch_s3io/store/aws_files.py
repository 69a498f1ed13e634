"""The files of ~/.aws, which profiles are in."""

from __future__ import annotations

import os

_FILES = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
)


def state_of_aws_files() -> tuple[tuple[int, int, int] | None, ...]:
    """Another one after each of them was changed, made or removed."""
    return tuple(_state_of(os.environ.get(name) or usual) for name, usual in _FILES)


def _state_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(os.path.expanduser(path))
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
