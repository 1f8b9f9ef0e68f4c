"""Which channels and instruments `tickerd watch` subscribes to, by what its user asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from daemon.client import ALL
from daemon.commands.terminal.peer import FAILED, WRONG_USAGE, CommandFailed, clean
from protocol.answers import ChannelReport
from protocol.channels import nearest
from protocol.kinds import KINDS, View

WatchKind: TypeAlias = Literal["trades", "book"]

_VIEWS: Final[dict[WatchKind, tuple[View, ...]]] = {"trades": (View.TRADE,), "book": (View.DEPTH, View.BOOK)}
"""What messages a kind is made of; what is better comes first."""

_MOST_NAMED: Final = 20
_MOST_CHARS: Final = 1000


class Wish(msgspec.Struct, frozen=True):
    """What the command line says.

    Attributes:
        channels: names; empty for all.
        instruments: only these; empty for all.
        kind: `trades` for a tape of trades, `book` for one instrument's book, None for the newest of everything.
        interval_ms: at most one message of each topic in this time.
    """

    channels: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    kind: WatchKind | None = None
    interval_ms: int | None = None

    @property
    def needs_catalogue(self) -> bool:
        """Whether it takes a look at the daemon's channels to know what is meant."""
        return bool(self.kind or self.instruments or self.interval_ms)


class Choice(msgspec.Struct, frozen=True):
    """What to subscribe to. `left_out`: channels of which an interval may leave nothing out."""

    channels: tuple[str, ...]
    instruments: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()


def chosen(wish: Wish, reports: Sequence[ChannelReport]) -> Choice:
    """What is meant, where these are the channels that the daemon lets us have.

    Raises:
        CommandFailed: there is nothing of the kind; the text names what there is.
    """
    if not wish.needs_catalogue:
        return Choice(wish.channels or (ALL,))
    there = {report.name: report for report in reports}
    if unknown := [name for name in wish.channels if name not in there]:
        raise _refused(f"unknown channel: {_said(unknown[0], there)}")
    wanted = [there[name] for name in wish.channels] or list(reports)
    wanted = _of_kind(wish, wanted)
    instruments = _instruments(wish, wanted)
    if instruments:
        lacking = [each.name for each in wanted if not set(instruments) & set(each.instruments)]
        if wish.channels and lacking:
            has = ", ".join(there[lacking[0]].instruments) or "no instruments: it is about a whole market"
            raise _refused(f"--instrument: {lacking[0]} has none of {', '.join(instruments)}; it has {has}")
        wanted = [each for each in wanted if each.name not in lacking]
    if wish.kind == "book":
        wanted, instruments = _one_book(wanted, instruments)
    left_out: list[str] = []
    if wish.interval_ms is not None and not wish.channels:
        left_out = [each.name for each in wanted if each.kind in KINDS and not KINDS[each.kind].thinnable]
        wanted = [each for each in wanted if each.name not in left_out]
        if not wanted:
            raise _refused(
                f"--interval: nothing of {', '.join(left_out[:_MOST_NAMED])} may be left out; allowed: without it"
            )
    return Choice(tuple(each.name for each in wanted), tuple(instruments) or None, tuple(left_out))


def _of_kind(wish: Wish, wanted: Sequence[ChannelReport]) -> list[ChannelReport]:
    """Those that have what `--kind` asks for, in the order of what is better. Raises: CommandFailed."""
    if wish.kind is None:
        return list(wanted)
    views = [str(view) for view in _VIEWS[wish.kind]]
    found = sorted((each for each in wanted if each.view in views), key=lambda each: views.index(each.view))
    if found:
        return found
    where = ", ".join(wish.channels) if wish.channels else "the daemon"
    kinds = ", ".join(kind.name for kind in KINDS.values() if kind.view in views)
    raise _refused(
        f"--kind {wish.kind}: {where} has none; allowed: channels of kind {kinds}, "
        "as [catalogue] presets of the daemon's configuration has them"
    )


def _instruments(wish: Wish, wanted: Sequence[ChannelReport]) -> list[str]:
    """The instruments as the daemon writes them; upper and lower case do not matter. Raises: CommandFailed."""
    there = {name.casefold(): name for each in wanted for name in each.instruments}
    for name in wish.instruments:
        if name.casefold() not in there:
            raise _refused(f"--instrument: {_said(name, there.values())}")
    return list(dict.fromkeys(there[name.casefold()] for name in wish.instruments))


def _one_book(wanted: Sequence[ChannelReport], instruments: Sequence[str]) -> tuple[list[ChannelReport], list[str]]:
    """The first channel that has the book of the one instrument. Raises: CommandFailed, where it is not one."""
    offered = dict.fromkeys(name for each in wanted for name in each.instruments)
    named = list(instruments or offered)
    if len(named) != 1:
        raise _refused(
            f"--kind book: got {len(instruments)} instruments; allowed: one --instrument of {_listed(offered)}",
            WRONG_USAGE,
        )
    return [next(each for each in wanted if named[0] in each.instruments)], named


def _refused(text: str, status: int = FAILED) -> CommandFailed:
    """What to tell the user; a daemon's names may be in it."""
    return CommandFailed(clean(text, _MOST_CHARS), status)


def _said(name: str, valid: Iterable[str]) -> str:
    """A name that there is not, and what it may stand for."""
    valid = tuple(dict.fromkeys(valid))
    near = nearest(name, valid)
    return f"{name!r}; allowed: {_listed(near or valid)}{' (the nearest)' if near else ''}"


def _listed(names: Iterable[str]) -> str:
    """The names, as far as a line goes."""
    names = tuple(names)
    more = f" and {len(names) - _MOST_NAMED} more (tickerd channels)" if len(names) > _MOST_NAMED else ""
    return (", ".join(names[:_MOST_NAMED]) or "none") + more
