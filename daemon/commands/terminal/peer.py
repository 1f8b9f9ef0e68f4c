"""What `tickerd watch`, `channels` and `ping` have in common: the daemon they talk to, and how they end.

Whatever comes from the network is made harmless before it is printed: a control character could steer the terminal.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import trio

from connectors.push.address import parse_address
from daemon.client import ClientError, CommandRefused, check_token, websocket_url
from daemon.host.text import decoded

TOKEN_VARIABLE: Final = "TICKERD_TOKEN"  # noqa: S105 - the variable's name, not a token
FAILED: Final = 1
WRONG_USAGE: Final = 2

_MOST_CHARS: Final = 300
_REFUSED: Final = os.strerror(errno.ECONNREFUSED)
_NOBODY: Final = "nothing listens there: `tickerd run` and `tickerd demo` start a daemon, --url names another one"


class CommandFailed(Exception):
    """A failure: one line for the user, and the exit code."""

    def __init__(self, line: str, status: int = FAILED) -> None:
        super().__init__(line)
        self.status = status


class Peer(msgspec.Struct, frozen=True):
    """The daemon to talk to: its websocket's address, and the token for it, "" for none."""

    url: str
    token: str


def open_peer(url: str, token_file: Path | None, environ: Mapping[str, str]) -> Peer:
    """The daemon that the command line and the environment name; a token file overrides the variable.

    Raises:
        CommandFailed: no such URL, or no token where one should be.
    """
    address = websocket_url(url)
    try:
        parse_address(address)
    except ValueError as error:
        raise CommandFailed(f"--url: {clean(str(error))}", WRONG_USAGE) from None
    origin = TOKEN_VARIABLE if token_file is None else str(token_file)
    try:
        token = environ.get(TOKEN_VARIABLE, "") if token_file is None else _read(token_file)
        token = token.strip()
        check_token(token)
    except OSError as error:
        raise CommandFailed(f"{origin}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CommandFailed(f"{origin}: {error}") from None
    if token_file is not None and not token:
        raise CommandFailed(f"{origin}: is empty; allowed: one token")
    return Peer(address, token)


def _read(file: Path) -> str:
    """Raises: OSError; ValueError, in words."""
    try:
        return decoded(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"is {error}") from None


def clean(text: str, most_chars: int = _MOST_CHARS) -> str:
    """Text from outside, with unprintable characters escaped, cut to a limit."""
    cut = text if len(text) <= most_chars else f"{text[: most_chars - 1]}…"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def run(command: Callable[[], Awaitable[None]]) -> None:
    """Run a command until it returns, or SIGINT or SIGTERM ends it; either way is a clean end.

    Raises:
        CommandFailed: it cannot go on, and why.
    """
    failure = trio.run(_run, command)
    if failure is not None and str(failure).endswith(_REFUSED):
        raise CommandFailed(f"{failure}; {_NOBODY}")
    if failure is not None:
        raise failure


async def _run(command: Callable[[], Awaitable[None]]) -> CommandFailed | None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop, signals, nursery.cancel_scope)
            try:
                await command()
            except (CommandFailed, ClientError, ExceptionGroup) as error:
                failure = _failure(error)
                if failure is None:
                    raise
                return failure
            finally:
                nursery.cancel_scope.cancel(reason="the command has ended")
    return None


def _failure(error: BaseException) -> CommandFailed | None:
    """What to tell the user, unless the error is a bug of the program."""
    match error:
        case BaseExceptionGroup(exceptions=[alone]):
            return _failure(alone)
        case CommandFailed():
            return error
        case CommandRefused():
            return CommandFailed(clean(error.message))
        case ClientError():
            return CommandFailed(clean(str(error)))
        case _:
            return None


async def _stop(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        scope.cancel(reason=signal.Signals(number).name)
        return
