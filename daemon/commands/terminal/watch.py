"""`tickerd watch`: a live table, a tape of trades or a book for a person, JSON lines for a pipe."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import trio

from daemon.client import Client, Data, Subscription, connect
from daemon.commands.terminal.catalogue import fetch_reports
from daemon.commands.terminal.choice import Choice, Wish, chosen
from daemon.commands.terminal.ladder import Ladder
from daemon.commands.terminal.lines import json_lines, plain_lines
from daemon.commands.terminal.peer import Peer, clean
from daemon.commands.terminal.picture import View
from daemon.commands.terminal.screen import show
from daemon.commands.terminal.table import Sheet
from daemon.commands.terminal.trades import TradeTape
from protocol.messages import Welcome

SIMULATED: Final = "simulated venues: no price here is a real one"

_DUMB: Final = ("", "dumb", "unknown")
"""Values of `TERM` of a terminal that cannot move its cursor."""


async def watch(peer: Peer, wish: Wish, *, json: bool) -> None:
    """Show what is wished for until cancelled, until `q` is pressed, or until nobody reads standard output.

    On a terminal that cannot move its cursor (`TERM` is `dumb`, `unknown` or not set) there is a line for each change.

    Raises:
        CommandFailed: the daemon has nothing of the kind.
        ClientError: see `connect` and `Subscription`; from inside a group where it is raised by the iteration.
    """
    async with connect(peer.url, token=peer.token) as client:
        reports = await fetch_reports(peer) if wish.needs_catalogue else ()
        covered = set(client.welcome.channels)
        choice = chosen(wish, [report for report in reports if report.name in covered])
        if choice.left_out:
            named = clean(", ".join(choice.left_out))
            sys.stderr.write(f"tickerd: left out, as no message of them may be skipped (--interval): {named}\n")
        subscription = client.subscribe(*choice.channels, instruments=choice.instruments, interval_ms=wish.interval_ms)
        remark = _unreal(client.welcome)
        if json:
            await json_lines(subscription, remark)
        elif os.environ.get("TERM", "").lower() in _DUMB:
            await plain_lines(subscription, remark)
        else:
            await _picture(client, subscription, await _view(client, peer, wish, choice))


def _unreal(welcome: Welcome) -> str:
    """Why what comes is not of now, in one line that is safe to print; "" if it is."""
    if welcome.replay:
        replay = welcome.replay
        return clean(f"a recording from {replay.from_} to {replay.to}, played at speed {replay.speed}")
    return SIMULATED if welcome.simulated else ""


async def _view(client: Client, peer: Peer, wish: Wish, choice: Choice) -> View:
    unreal = "simulated venues; " if client.welcome.simulated else ""
    unreal = f"{_unreal(client.welcome)}; " if client.welcome.replay else unreal
    title = f"{unreal}tickerd {client.welcome.server.version} at {peer.url}"
    match wish.kind:
        case "trades":
            return TradeTape(title)
        case "book":
            return Ladder(f"{choice.channels[0]} {' '.join(choice.instruments or ())}  {title}")
        case None:
            replayed = bool(client.welcome.replay)
            return Sheet(title, (await client.ping()).clock_offset_s, replayed=replayed)


async def _picture(client: Client, subscription: Subscription, view: View) -> None:
    first = trio.Event()
    async with trio.open_nursery() as nursery, subscription:
        nursery.start_soon(_take, client, subscription, view, first)
        await show(view, first)
        nursery.cancel_scope.cancel(reason="q was pressed")


async def _take(client: Client, subscription: Subscription, view: View, first: trio.Event) -> None:
    """Feed the view. It is shown after the first message, so that the screen does not hide a refusal."""
    async for received in subscription:
        # Up to the welcome's position they are older messages, which the daemon stamped when they were new.
        is_new = isinstance(received, Data) and received.seq > client.welcome.seq
        view.take(received, trio.current_time(), time.time() if is_new else None)
        first.set()
