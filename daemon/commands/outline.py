"""The command line as data, read off its parser: what shell completion and the man page are made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

import msgspec

_FILES: Final = frozenset({"FILE", "DIR"})
"""Placeholders of what is completed with the names of files."""


class Argument(msgspec.Struct, frozen=True):
    """An option, or a word that stands by its place.

    Attributes:
        names: of an option, as `--port`; empty for a word by its place.
        value: the placeholder of its value; "" for a switch.
        choices: the only values there are, if they are few.
        help: what it does.
        many: whether it may be given again.
    """

    names: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    many: bool = False

    @property
    def is_file(self) -> bool:
        """Whether its value is the name of a file or folder."""
        return self.value in _FILES


class Command(msgspec.Struct, frozen=True):
    """A command, or the program itself, whose name is "".

    Attributes:
        summary: in a few words.
        description: in sentences.
        examples: lines, as the help has them.
    """

    name: str
    summary: str
    description: str
    examples: tuple[str, ...]
    arguments: tuple[Argument, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        """What has a name."""
        return tuple(each for each in self.arguments if each.names)

    @property
    def words(self) -> tuple[Argument, ...]:
        """What stands by its place."""
        return tuple(each for each in self.arguments if not each.names)


def outline(parser: argparse.ArgumentParser) -> list[Command]:
    """The program itself, and each of its commands."""
    made = [_command("", "", parser)]
    for action in parser._actions:  # argparse has no public way to ask a parser what it knows
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
            made += [_command(name, summaries.get(name, ""), each) for name, each in action.choices.items()]
    return made


def _command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    examples = (parser.epilog or "").removeprefix("examples:\n").splitlines()
    return Command(name, summary, parser.description or "", tuple(examples), tuple(_arguments(parser)))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        choices = tuple(str(each) for each in action.choices or ())
        value = action.metavar if isinstance(action.metavar, str) else "{" + ",".join(choices) + "}" if choices else ""
        many = isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+")
        yield Argument(tuple(action.option_strings), value, choices, (action.help or "").replace("%%", "%"), many)
