"""Pages of the documentation: their snippets and commands, run as they stand there."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support import end_workers

import torch_s3io as s3io
from torch_s3io import cli

ROOT = Path(__file__).parents[1]
PROGRAM = ["python", "-m", "torch_s3io"]


class Key(NamedTuple):
    """A block of code: the heading that it is below, its language, and which of these it is."""

    heading: str
    language: str
    number: int = 0


class Page:
    """A page, and which of its blocks tests run.

    Args:
        name: Of the file, from the root of the project.
        not_run: Blocks that no test of this page runs, and why.
        not_run_commands: Commands of ``sh`` blocks that are not run, and why.
    """

    def __init__(
        self,
        name: str,
        not_run: Mapping[Key, str] | None = None,
        not_run_commands: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._not_run = dict(not_run or {})
        self._not_run_commands = {_normal(command) for command in not_run_commands or {}}
        self._run: set[Key] = set()

    def text(self) -> str:
        return (ROOT / self.name).read_text()

    def blocks(self) -> dict[Key, str]:
        found: dict[Key, str] = {}
        pattern = r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$"
        heading = ""
        for match in re.finditer(pattern, self.text(), re.M | re.S):
            if match["heading"]:
                heading = match["heading"]
                continue
            same = [key for key in found if key[:2] == (heading, match["language"])]
            found[Key(heading, match["language"], len(same))] = match["text"]
        return found

    def runs(self, *key: Any) -> Any:
        """The block that a test runs is its argument ``block``."""
        self._run.add(Key(*key))
        return pytest.mark.parametrize("block", [Key(*key)], ids=["-".join(map(str, key))])

    def check(self) -> None:
        """Every block and command is run by a test, or listed with a reason."""
        found = self.blocks()
        shells = {key for key in found if key.language == "sh"}
        assert set(found) == self._run | set(self._not_run) | shells
        assert not self._run & set(self._not_run)
        commands = {key: commands_of(found[key]) for key in shells}
        unknown = [
            command
            for key, block_commands in commands.items()
            for command in block_commands
            if key not in self._run and command not in self._not_run_commands
        ]
        assert unknown == []
        there = set(itertools.chain(*commands.values()))
        assert self._not_run_commands <= there, "listed, but not there any more"

    def run_commands(self, block: Key, replaced: Mapping[str, str] | None = None) -> list[int]:
        """Exit statuses of the commands of this block that are not listed as not run."""
        statuses = []
        for command in commands_of(self.blocks()[block]):
            if command in self._not_run_commands:
                continue
            words = [(replaced or {}).get(word, word) for word in shlex.split(command)]
            assert words[:3] == PROGRAM
            statuses.append(cli.main([argument for word in words[3:] for argument in word.split()]))
        return statuses

    def run(
        self,
        block: Key,
        names: dict[str, Any],
        replaced: Mapping[str, str] | None = None,
        at: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> list[Any]:
        """Runs the statements; returns the values of those that are expressions.

        Args:
            names: What the snippet refers to; afterwards also what it makes.
            replaced: Texts of the snippet that cannot run here, and what stands for them.
            at: More names, from the n-th statement on.
        """
        text = self.blocks()[block]
        for old, new in (replaced or {}).items():
            assert old in text
            text = text.replace(old, new)
        names |= {"np": np, "torch": torch, "s3io": s3io}
        values = []
        for number, statement in enumerate(ast.parse(text).body):
            names |= (at or {}).get(number, {})
            if isinstance(statement, ast.Expr):
                code = compile(ast.Expression(statement.value), self.name, "eval")
                values.append(eval(code, names))
            else:
                exec(compile(ast.Module([statement], []), self.name, "exec"), names)
        end_workers(getattr(names.get("loader"), "_iterator", None))
        return values


def _normal(command: str) -> str:
    return shlex.join(shlex.split(command))


def commands_of(text: str) -> list[str]:
    lines = (shlex.split(line, comments=True) for line in text.splitlines())
    return [shlex.join(words) for words in lines if words]
