"""`tickerd channels`: the daemon's channels and their states, from `GET /channels`, as a table or as JSON lines."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Final

import h11
import msgspec
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.base import VenueUnavailable
from connectors.push.address import parse_address
from connectors.push.dial import dial
from daemon.commands.terminal.peer import CommandFailed, Peer, clean
from daemon.commands.terminal.table import STYLES, seconds
from protocol.answers import ChannelList, ChannelReport
from protocol.messages import Error, Format, MessageError, decode_message

_TIMEOUT_S: Final = 10.0
_UNWRAPPED: Final = 1000
_MOST_BYTES: Final = 4 * 1024 * 1024


class _Lines(msgspec.Struct):
    """The answer, with each channel as received."""

    channels: list[msgspec.Raw]


async def channels(peer: Peer, say: Callable[[str], None], *, json: bool) -> None:
    """Print them.

    Raises:
        CommandFailed: no answer, or not the one of a tickerd.
    """
    body = await _get(peer, "channels")
    try:
        if json:
            for line in msgspec.json.decode(body, type=_Lines).channels:
                say(bytes(line).decode())
        else:
            listing = msgspec.json.decode(body, type=ChannelList)
            # Do not wrap lines for anything but a terminal.
            console = Console(highlight=False, width=None if sys.stdout.isatty() else _UNWRAPPED)
            with console.capture() as printed:
                console.print(_table(listing.channels))
            say(printed.get().rstrip("\n"))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise CommandFailed(f"{clean(peer.url)}: GET /channels has no list of channels: {clean(str(error))}") from None


def _table(reports: Sequence[ChannelReport]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("channel", "source", "kind", "instruments", "every", "state", "age"):
        table.add_column(name, justify="right" if name in ("every", "age") else "left", overflow="fold")
    for each in reports:
        state = Text(each.state, STYLES.get(each.state, ""))
        if each.reason and (each.state != "live" or each.topics):
            state.append(f" {clean(each.reason)}", "default")
        table.add_row(
            Text(clean(each.name), "bold"),
            Text(clean(each.source)),
            Text(clean(each.kind)),
            Text(clean(" ".join(each.instruments)) or "whole market"),
            Text("push" if each.cadence_s is None else seconds(each.cadence_s)),
            state,
            Text("never" if each.age_s is None else seconds(each.age_s)),
        )
    return table


async def _get(peer: Peer, name: str) -> bytes:
    """The body of a 200, by HTTP/1.1, from beside the websocket. Raises: CommandFailed."""
    address = parse_address(peer.url)
    path = f"{address.resource.partition('?')[0].rstrip('/').rpartition('/')[0]}/{name}"
    where = clean(address.host_header)
    headers = [("Host", address.host_header), ("Connection", "close"), ("User-Agent", "tickerd")]
    if peer.token:
        headers.append(("Authorization", f"Bearer {peer.token}"))
    request = h11.Request(method="GET", target=path, headers=headers)
    try:
        with trio.fail_after(_TIMEOUT_S):
            stream = await dial(
                address, ssl_context=ssl.create_default_context() if address.tls else None, timeout_s=_TIMEOUT_S
            )
            async with stream:
                status, body = await _exchange(stream, request)
    except VenueUnavailable as error:
        raise CommandFailed(clean(f"{where}: {error}")) from None
    except trio.TooSlowError:
        raise CommandFailed(f"{where} did not answer GET {path} in {_TIMEOUT_S:g} s") from None
    except (h11.ProtocolError, trio.BrokenResourceError):
        raise CommandFailed(f"{where} does not answer GET {path} by HTTP/1.1") from None
    if status == 200:
        return body
    said = f"{where}{path} answered with HTTP {status}"
    try:
        message = decode_message(body, Format.JSON)
    except MessageError:
        message = None
    raise CommandFailed(f"{said}: {clean(message.message)}" if isinstance(message, Error) else said)


async def _exchange(stream: trio.abc.Stream, request: h11.Request) -> tuple[int, bytes]:
    """One request and its answer. Raises: h11.ProtocolError, trio.BrokenResourceError."""
    connection = h11.Connection(h11.CLIENT)
    head = connection.send(request) or b""
    await stream.send_all(head + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            case h11.Response(status_code=code):
                status = code
            case h11.Data(data=data):
                body += data
                if len(body) > _MOST_BYTES:
                    raise h11.RemoteProtocolError("the answer is too long")
            case h11.EndOfMessage():
                return status, bytes(body)
            case h11.InformationalResponse():
                continue
            case _:
                raise h11.RemoteProtocolError("the connection was closed before the answer")
