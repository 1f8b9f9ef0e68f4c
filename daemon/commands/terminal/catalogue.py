"""`GET /channels` of a daemon: what it has, and how that does."""

from __future__ import annotations

import ssl
from typing import Final

import h11
import msgspec
import trio

from connectors.base import VenueUnavailable
from connectors.push.address import parse_address
from connectors.push.dial import dial
from daemon.commands.terminal.peer import CommandFailed, Peer, clean
from protocol.answers import ChannelList, ChannelReport
from protocol.messages import Error, Format, MessageError, decode_message

_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 4 * 1024 * 1024


class _Lines(msgspec.Struct):
    """The answer, with each channel as received."""

    channels: list[msgspec.Raw]


async def fetch_reports(peer: Peer) -> tuple[ChannelReport, ...]:
    """The channels. Raises: CommandFailed, if there is no answer, or not the one of a tickerd."""
    body = await _get(peer, "channels")
    try:
        return msgspec.json.decode(body, type=ChannelList).channels
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _no_list(peer, error) from None


async def fetch_lines(peer: Peer) -> list[str]:
    """The same as JSON, each channel as the daemon wrote it. Raises: CommandFailed."""
    body = await _get(peer, "channels")
    try:
        return [bytes(line).decode() for line in msgspec.json.decode(body, type=_Lines).channels]
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _no_list(peer, error) from None


def _no_list(peer: Peer, error: Exception) -> CommandFailed:
    return CommandFailed(f"{clean(peer.url)}: GET /channels has no list of channels: {clean(str(error))}")


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
