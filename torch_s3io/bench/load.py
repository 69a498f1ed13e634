"""Configurations: those that come with the package, by name, and YAML files."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from ..console import optional_package
from ..errors import ConfigError, NotFoundError
from ..wording import did_you_mean, one_line
from .config import BenchConfig
from .parse import from_mapping, keys_with_values, takes_text, to_mapping, with_settings

_SUFFIX = ".yaml"
_MOST_CHARACTERS = 1 << 16
_MOST_NESTED = 50  # { and [ within one another: PyYAML looks at all of them with each character


def shipped_names() -> list[str]:
    folder = resources.files(__package__) / "configs"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def shipped_text(name: str) -> str:
    """The YAML of a configuration that comes with the package."""
    if name not in shipped_names():
        raise NotFoundError(f"no configuration is named {name}: {_meant(name)}")
    return (resources.files(__package__) / "configs" / f"{name}{_SUFFIX}").read_text("utf-8")


def explained_text(name: str) -> str:
    """The same with the keys that it leaves out, and their defaults, as comments."""
    text = shipped_text(name)
    chosen = keys_with_values(_parse_yaml(text, name))
    others = keys_with_values(to_mapping(BenchConfig()))
    lines = [f"#   {key}: {json.dumps(others[key])}" for key in others if key not in chosen]
    return "\n".join(
        [text.rstrip("\n"), "# Keys that are left out, with their defaults:", *lines, ""]
    )


def _meant(name: str) -> str:
    """What to name instead of a configuration that is not there."""
    for suffix in (_SUFFIX, ".yml"):
        if Path(name + suffix).is_file():
            return f"did you mean the file {name}{suffix}?"
    if Path(name).is_file():
        return f"and the name of a file with one ends in {_SUFFIX} or .yml"
    return did_you_mean(Path(name).stem, shipped_names())


def load(name: str, settings: list[str]) -> BenchConfig:
    """The configuration of a YAML file, or of a shipped name, with ``key=value`` settings put in.

    Raises:
        NotFoundError: There is neither such a file nor such a name.
        ConfigError: What it says cannot work; the text names the key.
    """
    path = Path(name)
    if path.suffix in (_SUFFIX, ".yml"):
        if not path.is_file():
            raise NotFoundError(f"{name}: there is no such file; {_meant(name)}")
        try:
            text, stem = path.read_text("utf-8"), path.stem
        except (OSError, ValueError) as error:
            raise ConfigError(f"{name}: cannot be read as UTF-8 text: {error}") from None
    else:
        text, stem = shipped_text(name), name
    values = _parse_yaml(text, name)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: must hold keys and values")
    try:
        values = with_settings(values, settings, _parse_setting)
        return from_mapping(BenchConfig, {"name": stem, **values})
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _parse_setting(key: str, text: str) -> Any:
    """The value of ``--set``: YAML; names and paths as they are, of whatever bytes."""
    return text if takes_text(BenchConfig, key) else _parse_yaml(text, f"--set {one_line(key)}")


def _parse_yaml(text: str, where: str) -> Any:
    yaml = optional_package("yaml", "PyYAML", "bench", "reading a configuration")
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"{where}: has {len(text)} characters, more than a configuration has")

    # mypy knows no class of an optional package.
    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= _MOST_NESTED:
                raise ConfigError(f"{where}: {_MOST_NESTED} brackets are open: is no configuration")
            super().fetch_flow_collection_start(token)

        def compose_node(self, parent: Any, index: Any) -> Any:
            # Values that hold one another would take any amount of time and memory.
            if self.check_event(yaml.AliasEvent):
                raise ConfigError(f"{where}: &name and *name are not known here: repeat the value")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.value in seen:
                    raise ConfigError(f"{where}: {one_line(key.value)} is there twice")
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except ConfigError:
        raise
    # Numbers and dates that are none are ValueErrors; numbers that are too large OverflowErrors.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        said = one_line(" ".join(str(error).split()), 500)
        raise ConfigError(f"{where}: is no YAML: {said}") from None
