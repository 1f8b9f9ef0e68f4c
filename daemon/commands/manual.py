"""The man page, made from the help: `make pages` writes systemd/tickerd.1, which the wheel installs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from daemon.commands.arguments import parser
from daemon.commands.outline import Argument, Command, outline

_EXIT_CODES = (
    ("0", "a clean stop"),
    ("1", "a failure, which is told in one line"),
    ("2", "a wrong command line"),
    ("78", "a wrong configuration (EX_CONFIG of sysexits.h)"),
    ("130", "interrupted before the daemon runs, or in a rehearsal"),
)

_FILES = (
    ("/etc/tickerd/tickerd.toml", "where the unit of systemd looks for the configuration"),
    ("PREFIX/share/tickerd/", "the example of a configuration, units, alert rules, a dashboard, and how to deploy"),
)

_ENVIRONMENT = (
    ("TICKERD_SECTION__KEY", "overrides the key KEY of [SECTION] of the configuration"),
    ("TICKERD_TOKEN", "the token of the commands that talk to a daemon"),
    ("NO_COLOR", "where it is set, nothing is coloured"),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "the proxy that venues are reached through"),
)


def page(commands: Sequence[Command]) -> str:
    """The page as roff. It names no version and no date, so that it changes only with the help."""
    return "\n".join(_lines(commands)) + "\n"


def _lines(commands: Sequence[Command]) -> Iterator[str]:
    program, *others = commands
    yield '.\\" Made from the help of the command line by `make pages`; change that instead.'
    yield '.TH TICKERD 1 "" "tickerd" "User Commands"'
    yield from (
        ".SH NAME",
        f"tickerd \\- {_text(program.description[:1].lower() + program.description[1:].rstrip('.'))}",
    )
    yield from (".SH SYNOPSIS", ".B tickerd", "COMMAND [OPTION]...")
    yield ".SH OPTIONS"
    for option in program.options:
        yield from _argument(option)
    yield ".SH COMMANDS"
    for command in others:
        yield f".SS tickerd {_text(command.name)} {_text(' '.join(map(_usage, command.arguments)))}"
        yield _text(command.description)
        for argument in command.arguments:
            if "-h" not in argument.names:
                yield from _argument(argument)
        yield from (".PP", ".nf", ".RS 4", *map(_text, command.examples), ".RE", ".fi")
    for title, rows in (("EXIT STATUS", _EXIT_CODES), ("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        for name, told in rows:
            yield from (".TP", f"\\fB{_text(name)}\\fR", _text(told))


def _usage(argument: Argument) -> str:
    if "-h" in argument.names:
        return ""
    if not argument.names:
        return f"[{argument.value}]..." if argument.many else argument.value
    return f"[{argument.names[-1]}{f' {argument.value}' if argument.value else ''}]"


def _argument(argument: Argument) -> Iterator[str]:
    names = ", ".join(f"\\fB{_text(name)}\\fR" for name in argument.names)
    value = f"\\fI{_text(argument.value)}\\fR" if argument.value else ""
    yield from (".TP", f"{names} {value}".strip(), _text(argument.help))


def _text(text: str) -> str:
    """Words that roff takes for words: no dot or quote at the start of a line, and hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped)


if __name__ == "__main__":
    sys.stdout.write(page(outline(parser("0"))))
