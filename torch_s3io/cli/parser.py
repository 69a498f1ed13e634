"""The parser of all commands: argparse's, which suggests names that are nearly right."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..console import note_text, say_text
from ..wording import did_you_mean, printable

_NUMBER = re.compile(r"-\d+|-\d*\.\d+")


def whole_number(at_least: int) -> Callable[[str], int]:
    """A type of arguments: integers from there on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = at_least - 1
        if number < at_least:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {at_least} on")
        return number

    return parse


class Parser(argparse.ArgumentParser):
    """As argparse's, but: an option or a choice that does not exist is said first, with one that is
    meant perhaps; ``-output`` is not ``-o utput``; texts come through on any terminal.

    ``commands`` may name parsers that take over where the first argument is their name. Unlike
    argparse's own they leave the options of this parser on its page of help.
    """

    commands: dict[str, Parser]

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)
        self.commands = {}

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        arguments = list(sys.argv[1:] if args is None else args)
        if arguments and arguments[0] in self.commands:
            return self.commands[arguments[0]].parse_known_args(arguments[1:], namespace)
        for name in self._options_in(arguments):
            self._check_option(name)
        parsed, more = super().parse_known_args(arguments, namespace)
        if more:
            near = difflib.get_close_matches(arguments[0], self.commands, n=1)
            meant = f"; did you mean the command {near[0]}?" if near else ""
            self.error(f"more arguments than it takes: {shlex.join(more)}{meant}")
        return parsed, []

    def _options_in(self, arguments: list[str]) -> list[str]:
        """The options among the arguments; those of a command that follows are left to it."""
        found = []
        for argument in arguments:
            is_option = argument.startswith("-") and not _NUMBER.fullmatch(argument)
            if argument == "--" or (self._subparsers is not None and not is_option):
                break
            if is_option and argument != "-":
                found.append(argument.partition("=")[0])
        return found

    def _check_option(self, name: str) -> None:
        known = self._option_string_actions
        if name.startswith("--"):
            if not any(option.startswith(name) for option in known):  # a beginning is enough
                names = [option for option in known if option.startswith("--")]
                self.error(f"there is no option {name}: {did_you_mean(name, names)}")
        elif f"-{name}" in known:
            self.error(f"there is no option {name}: did you mean -{name}?")
        elif name[:2] not in known:
            self.error(f"there is no option {name}: {did_you_mean(name, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            suggestion = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"there is no {value}: {suggestion}")

    def error(self, message: str) -> NoReturn:
        text = f"{self.format_usage()}{self.prog}: {printable(message)}\n"
        self.exit(2, f"{text}{self.prog} --help has examples\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        (say_text if file is sys.stdout else note_text)(message)
